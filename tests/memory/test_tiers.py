"""Tiers: what was written comes back, wherever it was kept."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_tiers.copies import copy_pages
from memory_tiers.counters import Counters
from memory_tiers.tiers.cpu import HostMemory
from tests.memory.tiers import (
    DTYPES,
    KINDS,
    NUM_FRAMES,
    geometry,
    make_disk,
    make_tier,
    pages,
    same,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tier")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(
    dtype=st.sampled_from(DTYPES),
    page_tokens=st.sampled_from([1, 3, 16, 64]),
    head_dim=st.sampled_from([1, 32, 64]),
    writes=st.lists(st.lists(st.integers(0, NUM_FRAMES - 1), unique=True, min_size=1), max_size=4),
    reads=st.lists(st.integers(0, NUM_FRAMES - 1)),
)
def test_what_was_written_comes_back(folder, kind, dtype, page_tokens, head_dim, writes, reads):
    shape = geometry(dtype, page_tokens, head_dim)
    tier = make_tier(kind, folder, shape)
    expected_FPSD = torch.zeros_like(pages(NUM_FRAMES, shape))
    for seed, frames in enumerate(writes):
        content_NPSD = pages(len(frames), shape, seed)
        tier.write(torch.tensor(frames), content_NPSD)
        expected_FPSD[frames] = content_NPSD
    written = sorted({frame for frames in writes for frame in frames})
    for frames in (written, [frame for frame in reads if frame in written]):
        frames_N = torch.tensor(frames, dtype=torch.int64)
        assert same(tier.read(frames_N), expected_FPSD[frames_N])
    tier.close()


@pytest.mark.parametrize("source_kind", KINDS[::3])
@pytest.mark.parametrize("target_kind", KINDS[::3])
def test_pages_move_between_any_two_tiers(folder, source_kind, target_kind):
    shape = geometry(torch.bfloat16, head_dim=64)
    source, target = (make_tier(kind, folder, shape) for kind in (source_kind, target_kind))
    content_FPSD, other_FPSD = pages(NUM_FRAMES, shape, 1), pages(NUM_FRAMES, shape, 2)
    everywhere = torch.arange(NUM_FRAMES)
    source.write(everywhere, content_FPSD)
    target.write(everywhere, other_FPSD)
    from_N, to_N, counters = torch.tensor([7, 3, 4, 5, 23, 3]), torch.randperm(24)[:6], Counters()
    copy_pages(source, from_N, target, to_N, counters)
    other_FPSD[to_N] = content_FPSD[from_N]
    assert same(target.read(everywhere), other_FPSD)
    moved = {f"{source.name}->{target.name}": 6 * shape.page_bytes}
    assert counters.current.bytes_moved == moved


def test_a_tier_of_no_frames_is_possible(folder):
    for kind in KINDS[::4]:
        one = make_tier(kind, folder, geometry())
        assert len(one.read(one.allocate(0))) == 0
    assert make_disk(folder, frames=0).num_free == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_host_memory_below_a_cuda_device_is_pinned():
    tier = HostMemory("cpu", NUM_FRAMES, geometry(device="cuda"))
    assert tier.pinned and tier.pool_FPSD.is_pinned()
    tier.close()
