"""The parts of the memory one by one: frames, summaries, refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_tiers.base import KVGeometry, OutOfFramesError, Rows, count_bits, prefix_bits
from memory_tiers.copies import copy_pages
from memory_tiers.counters import Counters
from memory_tiers.level import Level
from memory_tiers.manager import CacheManager
from memory_tiers.page_table import PageTable
from memory_tiers.policies.lru import Lru
from memory_tiers.sharing import Sharing
from memory_tiers.summary_store import SEGMENT, SummaryStore
from memory_tiers.tables.flat import Flat
from memory_tiers.tiers.arena import Arena
from sparse_algos.index_data import TensorSpec
from tests.laws.laws import frames_of

CPU = torch.device("cpu")
examples = settings(max_examples=50)


def geometry(page_tokens: int = 4) -> KVGeometry:
    return KVGeometry(
        num_layers=2,
        num_kv_heads=2,
        head_dim=8,
        page_tokens=page_tokens,
        dtype=torch.float32,
        device=CPU,
    )


def manager(*frames: int) -> CacheManager:
    """Two sequences of up to 40 tokens over arenas called hbm and cpu."""
    names = ("hbm", "cpu")[: len(frames)]
    shape = geometry()
    tiers = tuple(Arena(name, n, shape, CPU) for name, n in zip(names, frames, strict=True))
    table = PageTable(shape, 2, 40)
    levels = tuple(
        Level(tier, Flat(table.num_pages, CPU), Lru() if tier is not tiers[-1] else None, table)
        for tier in tiers
    )
    return CacheManager(shape, table, levels, Sharing(table, None, 12), Counters())


def store(memory: CacheManager, pages: list[int]) -> None:
    """One token to slot 0 of each page, its value the page's id."""
    pages_N = torch.tensor(pages)
    content_ND = pages_N.float().unsqueeze(1).expand(-1, 8)
    memory.write(pages_N, torch.zeros_like(pages_N), content_ND, -content_ND)


@pytest.mark.parametrize("page_tokens", [0, -1, 65])
def test_a_page_size_that_no_bit_mask_holds_is_refused(page_tokens):
    with pytest.raises(ValueError, match=rf"^partition\.page_tokens={page_tokens} [^\n]*$"):
        geometry(page_tokens)


def test_sizes_follow_from_the_geometry():
    shape = geometry()
    assert shape.page_bytes == Arena("hbm", 1, shape, CPU).pool_FPSD.nbytes == 4 * 2 * 8 * 4
    assert [shape.pages_for(tokens) for tokens in (0, 1, 4, 5)] == [0, 4, 4, 8]


@pytest.mark.parametrize("page_tokens", [1, 16, 63, 64])
def test_prefix_bits_are_the_first_slots(page_tokens):
    masks = prefix_bits(page_tokens, CPU)
    assert [count_bits(mask.view(1), page_tokens) for mask in masks] == list(range(page_tokens + 1))
    assert all(int(masks[n]) & (1 << 64) - 1 == (1 << n) - 1 for n in range(page_tokens + 1))


@examples
@given(st.lists(st.integers(-6, 6), max_size=30))
def test_frames_come_and_go_without_loss(amounts):
    arena, held = Arena("hbm", 20, geometry(), CPU), []
    for amount in amounts:
        if amount > 0:
            held += arena.allocate(min(amount, arena.num_free)).tolist()
        elif amount < 0:
            arena.free(torch.tensor(held[:-amount], dtype=torch.int64))
            held = held[-amount:]
        assert len(set(held)) == len(held) == 20 - arena.num_free
        assert set(held) <= set(range(20))
    assert arena.peak_frames >= len(held)
    assert arena.peak_bytes == arena.peak_frames * geometry().page_bytes


def test_fresh_frames_come_in_ascending_runs():
    arena = Arena("hbm", 8, geometry(), CPU)
    assert arena.allocate(3).tolist() == [0, 1, 2]
    assert arena.allocate(2).tolist() == [3, 4]


def test_frames_that_are_not_there_cannot_be_had_or_given():
    arena = Arena("hbm", 2, geometry(), CPU)
    with pytest.raises(AssertionError, match="asked 3"):
        arena.allocate(3)
    with pytest.raises((AssertionError, RuntimeError)):
        arena.free(torch.tensor([0]))


def test_copying_counts_bytes_by_direction():
    slow, fast = (Arena(name, 4, geometry(), CPU) for name in ("cpu", "hbm"))
    slow.pool_FPSD.copy_(torch.arange(4).view(4, 1, 1, 1).expand_as(slow.pool_FPSD))
    counters = Counters()
    copy_pages(slow, torch.tensor([3, 1]), fast, torch.tensor([0, 2]), counters)
    copy_pages(slow, torch.tensor([], dtype=torch.int64), fast, torch.tensor([]), counters)
    assert fast.pool_FPSD[[0, 2], 0, 0, 0].tolist() == [3, 1]
    assert counters.current.bytes_moved == {"cpu->hbm": 2 * geometry().page_bytes}


def test_what_was_written_comes_back_from_below():
    memory = manager(3, 20)
    for page in range(10):
        store(memory, [page])
    for page in range(10):
        frame = memory.fetch(torch.tensor([page])).frames_N
        assert memory.pool_FPSD[frame, 0, 0, 0].item() == page
        assert memory.pool_FPSD[frame, 1, 0, 0].item() == -page
    assert memory.counters.current.pages_evicted == 7 + 10
    assert memory.counters.current.pages_hit == 0


def test_a_hit_is_counted_and_moves_nothing():
    memory = manager(3, 20)
    store(memory, [0, 1])
    memory.fetch(torch.tensor([0, 1]))
    count = memory.counters.current
    assert (count.pages_wanted, count.pages_hit, count.pages_evicted) == (2, 2, 0)
    assert not count.bytes_moved


def test_more_than_the_fast_tier_holds_is_refused_with_the_size_that_would_do():
    for frames in ((3,), (3, 20)):
        memory = manager(*frames)
        needed = 4 * geometry().page_bytes
        with pytest.raises(
            OutOfFramesError, match=rf"^tier\.hbm\.size holds 3 .* {needed} bytes, "
        ):
            store(memory, [0, 1, 2, 3])


def test_what_is_dropped_stays_dropped_until_the_sequence_leaves():
    memory, rows = manager(8, 20), Rows(torch.tensor([0]), torch.tensor([8]), 8)
    pages_N, slots_N = torch.arange(2).repeat_interleave(4), torch.arange(4).repeat(2)
    memory.write(pages_N, slots_N, torch.ones(8, 8), torch.ones(8, 8))
    for dropped in ((0, 1), (2, 7), (3,)):
        keep_1T = torch.ones(1, 8, dtype=torch.bool)
        keep_1T[0, list(dropped)] = False
        memory.drop_slots(rows, keep_1T)
    assert memory.table.dead_P is not None
    assert memory.table.dead_P[:2].tolist() == [0b1111, 0b1000]
    assert (frames_of(memory)[:, :2] >= 0).any(0).tolist() == [False, True]
    memory.release(0)
    assert not memory.table.dead_P.any()


def test_a_full_lower_tier_is_refused_by_its_name():
    memory = manager(2, 1)
    store(memory, [0, 1])
    with pytest.raises(
        OutOfFramesError, match=r"^tier\.cpu\.size is full: 1 pages; raise it[^\n]*$"
    ):
        store(memory, [2, 3])


SPEC = {"one": TensorSpec((3,), torch.float32), "two": TensorSpec((), torch.int64)}


@examples
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 3 * SEGMENT)), max_size=20),
    st.integers(0, 100),
)
def test_a_summary_store_gives_back_what_was_written(actions, seed):
    kept, plain = SummaryStore(SPEC, 6, 3 * SEGMENT, CPU), {}
    generator = torch.Generator().manual_seed(seed)
    for row, count in actions:
        if count < 0:
            kept.release(torch.tensor([row]))
            plain.pop(row, None)
        if count <= 0:
            continue
        rows_N, partition_N = torch.full((count,), row), torch.randperm(count, generator=generator)
        one = {
            "one": torch.randn(count, 3, generator=generator),
            "two": torch.randint(99, (count,), generator=generator),
        }
        kept.reserve(torch.tensor([row]), count)
        kept.write(rows_N, partition_N, one)
        order = partition_N.argsort()
        old = plain.get(row, {name: tensor[:0] for name, tensor in one.items()})
        plain[row] = {
            name: torch.cat((tensor[order], old[name][count:])) for name, tensor in one.items()
        }
    for row, expected in plain.items():
        count = len(expected["two"])
        found = kept.read(torch.tensor([row]), count)
        single = kept.read_at(torch.full((count,), row), torch.arange(count))
        for name in SPEC:
            assert torch.equal(found[name][0], expected[name])
            assert torch.equal(single[name], expected[name])


def test_segments_are_counted_at_their_peak():
    kept = SummaryStore(SPEC, 4, 2 * SEGMENT, CPU)
    assert kept.segment_bytes == SEGMENT * (3 * 4 + 8)
    kept.reserve(torch.tensor([0, 1]), SEGMENT + 1)
    kept.release(torch.tensor([0]))
    kept.reserve(torch.tensor([2]), 1)
    assert kept.peak_segments == 4
    assert kept.peak_bytes == 4 * kept.segment_bytes + 4 * 2 * 8
