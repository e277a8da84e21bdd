"""Where frames and summaries lie in blocks of another engine, and what others put there."""

import pytest
import torch
from torch import Tensor

from backends.vllm.pages import unpack_slots, unpack_vec
from tests.backends.test_blocks_of_an_engine import BLOCK, DIM, HEADS, composition_of, layout_of
from tests.laws.configs import PAGE_TOKENS


@pytest.mark.parametrize("block_tokens", [16, 32, 64, 96, 128, 1024])
def test_frames_and_segments_of_a_cache_are_each_of_one_block_and_head(block_tokens):
    layout = layout_of(composition_of("quest"), block_tokens)
    assert layout.refusals() == []
    blocks_BW = torch.tensor([[3, 0], [1, 2]])
    for places_BKN in (layout.frames(blocks_BW), layout.segments(blocks_BW)):
        total = 4 * HEADS * places_BKN.shape[2] // 2
        assert places_BKN.flatten().sort().values.tolist() == list(range(total))
    assert layout.segment * layout.segments_per_block * 16 == block_tokens
    assert 64 % layout.segment == 0


def test_blocks_that_partitions_do_not_divide_are_refused_with_both_reasons():
    (pages, partitions) = layout_of(composition_of("quest of 32"), 72).refusals()
    assert "partition.page_tokens=16" in pages
    assert "algo.retrieve=32" in partitions


def test_formats_of_others_are_unpacked():
    layout = layout_of(composition_of("quest"))
    key, value = torch.randn(2, 5, HEADS, BLOCK, DIM)
    ours = torch.stack((key, value), 3).unflatten(2, (-1, PAGE_TOKENS)).transpose(3, 4)
    assert_unpacked(layout.unpack(ours.reshape(5, HEADS, BLOCK, 2 * DIM)), key, value)
    vec = torch.cat((key.mT.flatten(2), value.flatten(2)), dim=2)
    assert_unpacked(unpack_vec(vec.view(5, HEADS, BLOCK, 2 * DIM)), key, value)
    assert_unpacked(unpack_slots(torch.cat((key, value), dim=3)), key, value)


def assert_unpacked(found, key: Tensor, value: Tensor) -> None:
    assert torch.equal(found.key_BKND, key)
    assert torch.equal(found.value_BKND, value)
