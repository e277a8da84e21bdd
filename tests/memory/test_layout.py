"""Where clusters lie: every token in one slot of its own, whenever new ones are formed."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memory_tiers.base import KVGeometry, SlotRanges
from memory_tiers.page_table import PageTable
from memory_tiers.partition.layout import ClusterLayout
from memory_tiers.partition.packed import Packed
from memory_tiers.partition.padded import Padded
from memory_tiers.tables.offsets import PartitionOffsets
from tests.laws.configs import settings_of
from tests.laws.laws import (
    LENGTHS,
    TIGHT_BUDGET,
    assert_full_budget_is_dense,
    assert_moved,
    assert_same_answers,
    converse,
    frames_of,
)
from tests.laws.system import Shape, System, algorithm_with, build_system, stream_of, tokens_of

SHAPE = Shape()
PARTITIONS = ["packed", "padded"]
partitions = pytest.mark.parametrize("partition", PARTITIONS)
examples = settings(max_examples=40)


def layout_of(mapper, page_tokens: int, max_tokens: int, most_partitions: int) -> ClusterLayout:
    geometry = KVGeometry(
        num_layers=2,
        num_kv_heads=2,
        head_dim=4,
        page_tokens=page_tokens,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    own = mapper.own_pages(max_tokens, most_partitions, page_tokens)
    return ClusterLayout(mapper, PageTable(geometry, 3, max_tokens, own), most_partitions)


@examples
@given(
    mapper=st.sampled_from([Packed(), Padded()]),
    page_tokens=st.sampled_from([1, 3, 16]),
    segments=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5),
)
def test_clusters_never_share_a_slot_nor_leave_their_row(mapper, page_tokens, segments):
    sinks, counts = 2, [sum(sizes) for sizes in segments]
    max_tokens, most = sinks + sum(counts) + 5, sum(map(len, segments))
    layout = layout_of(mapper, page_tokens, max_tokens, most)
    start, found = sinks, [set(range(sinks)), set(range(sinks))]
    for sizes, count in zip(segments, counts, strict=True):
        # The other kv head has the same clusters in another order.
        sizes_KP = torch.tensor([sizes, sizes[::-1]])
        first_KP = layout.add(1, 2, range(start, start + count), sizes_KP)
        for taken, firsts, counted in zip(found, first_KP.tolist(), sizes_KP.tolist(), strict=True):
            for first, size in zip(firsts, counted, strict=True):
                slots = set(range(first, first + size))
                assert not taken & slots
                taken |= slots
                assert not mapper.moves or size == 0 or first % page_tokens == 0
        start += count
    assert layout.covered(1, 2) == (start, most)
    for taken in found:
        assert len(taken) == sinks + sum(counts)
        assert max(taken) < layout._table.pages_per_row * page_tokens
        if not mapper.moves:
            assert taken == set(range(start))
    layout.release(2)
    assert layout.covered(1, 2) == (0, 0)
    sizes_KP = torch.tensor([segments[0], segments[0][::-1]])
    again_KP = layout.add(1, 2, range(sinks, sinks + counts[0]), sizes_KP)
    assert again_KP.min() >= (layout._table.token_pages * page_tokens if mapper.moves else sinks)
    assert again_KP.min() < (layout._table.token_pages + 1) * page_tokens


def test_offsets_are_read_as_they_were_written_and_forgotten_when_released():
    offsets = PartitionOffsets(4, 8, torch.device("cpu"))
    rows_R, partitions_RC = torch.tensor([3, 1]), torch.tensor([[0, 5], [7, 2]])
    written = SlotRanges(torch.tensor([[4, 9], [1, 30]]), torch.tensor([[5, 1], [2, 7]]))
    offsets.put(rows_R, partitions_RC, *written)
    read = offsets.read(rows_R, partitions_RC)
    assert torch.equal(read.first_RC.long(), written.first_RC)
    assert torch.equal(read.count_RC.long(), written.count_RC)
    assert offsets.sizes(rows_R, 6).tolist() == [[5, 0, 0, 0, 0, 1], [0, 0, 7, 0, 0, 0]]
    offsets.release(rows_R[:1])
    assert offsets.sizes(rows_R, 8).sum(1).tolist() == [0, 9]


@pytest.mark.parametrize("mapper", [Packed(), Padded()])
def test_blocks_and_tokens_are_no_clusters(mapper):
    name = type(mapper).__name__.lower()
    assert f"partition={name} places clusters" in mapper.refusal("block", 16, 16)
    assert f"partition={name} places clusters" in mapper.refusal("token", 1, 16)
    assert mapper.refusal("cluster", 1, 16) is None


def slots_of(system: System, uid: str, layer: int) -> Tensor:
    """Slots where sinks, clusters and newest tokens lie, as bool [K, slots of a row]."""
    table, layout = system.memory.table, system.attention.index._layout
    slot, size = system.holds[uid], system.memory.geometry.page_tokens
    covered, stored = layout.covered(layer, slot), system.stored[uid]
    rows_K = table.rows_of(torch.tensor([slot])) + layer * table.num_rows
    partition_P = torch.arange(covered.partitions).expand(len(rows_K), -1)
    ranges = layout._offsets.read(rows_K, partition_P)
    used_KN = torch.zeros(len(rows_K), table.pages_per_row * size, dtype=torch.bool)
    sinks = system.attention.algorithm.retrieve.sinks
    used_KN[:, :sinks] = True
    used_KN[:, max(sinks, covered.tokens) : stored] = True
    for head, row in enumerate(zip(*ranges, strict=True)):
        for first, count in zip(*(one.tolist() for one in row), strict=True):
            assert not used_KN[head, first : first + count].any()
            used_KN[head, first : first + count] = True
    return used_KN


def content_of(system: System, uid: str, layer: int) -> Tensor:
    """Keys and values of every page of a row, NaN where there is none: [K, 2, slots, D]."""
    memory, table = system.memory, system.memory.table
    rows_K = table.rows_of(torch.tensor([system.holds[uid]]))
    pages_KN = table.first_page(layer, rows_K).unsqueeze(1) + torch.arange(table.pages_per_row)
    size, dim = memory.geometry.page_tokens, memory.geometry.head_dim
    held = torch.full((*pages_KN.shape, 2, size, dim), torch.nan)
    for level in reversed(range(len(memory.tiers))):
        frames_KN = system.memory.levels[level].frames(pages_KN)
        held[frames_KN >= 0] = memory.tiers[level].pool_FPSD[frames_KN[frames_KN >= 0]]
    return held.movedim(2, 1).flatten(2, 3)


@partitions
def test_every_token_is_in_one_slot_with_its_own_value(partition):
    system = build_system(settings_of("retroinfer", partition), SHAPE, TIGHT_BUDGET)
    system.context("long", LENGTHS["long"])
    system.question("long", 9)
    for _ in range(25):
        system.decode("long")
    stored, stream = system.stored["long"], stream_of("long", SHAPE)
    for layer in range(SHAPE.layers):
        used_KN = slots_of(system, "long", layer)
        held = content_of(system, "long", layer)
        for head in range(SHAPE.kv_heads):
            keys_ND, values_ND = held[head][:, used_KN[head]]
            known_TD = stream.key[layer, :, head]
            token_N = tokens_of(keys_ND.unsqueeze(0), known_TD.unsqueeze(0))[0]
            assert sorted(token_N.tolist()) == list(range(stored))
            assert torch.equal(values_ND, stream.value[layer, token_N, head])
            assert token_N.tolist() != list(range(stored)), "nothing moved: the law is empty"


@pytest.mark.parametrize(("partition", "fast_pages"), [("packed", 26), ("padded", 130)])
def test_clusters_formed_in_mid_decode_keep_every_answer(partition, fast_pages):
    fast_bytes = fast_pages * 16 * SHAPE.head_dim * 2 * 4
    settings = settings_of("retroinfer", partition, "hbm+cpu", max_batch=1, fast_bytes=fast_bytes)
    whole = algorithm_with(settings, 2000)
    often, never = (
        replace(whole, retrieve=replace(whole.retrieve, rebuild_every=every)) for every in (8, 1000)
    )
    answers, covered = [], []
    for algorithm in (often, never):
        system = build_system(settings, SHAPE, algorithm=algorithm)
        system.context("long", LENGTHS["long"])
        layout, slot = system.attention.index._layout, system.holds["long"]
        covered.append([])
        for _ in range(40):
            system.decode("long")
            covered[-1].append(layout.covered(2, slot).tokens)
        assert_full_budget_is_dense(system)
        answers.append(system.answers)
        if algorithm is often:
            assert_moved(system)
    assert len(set(covered[0])) >= 5, "nothing was formed in mid-decode: the law is empty"
    assert set(covered[1]) == {0}
    assert_same_answers(*answers)


@partitions
def test_clusters_are_formed_in_waves_where_the_fast_tier_is_small(partition):
    def converse_with(tier: str, fast_bytes: int | None) -> System:
        settings = settings_of(
            "retroinfer",
            partition,
            tier,
            page_tokens=4,
            fast_bytes=fast_bytes,
            max_batch=1,
            chunk_tokens=16,
        )
        system = build_system(settings, SHAPE, 24)
        system.context("long", 160)
        for _ in range(12):
            system.decode("long")
        return system

    fast_pages = 24 * SHAPE.kv_heads
    small = converse_with("hbm+cpu", fast_pages * 4 * SHAPE.head_dim * 2 * 4)
    assert small.memory.num_fast_frames == fast_pages < SHAPE.kv_heads * 160 // 4
    assert_same_answers(small.answers, converse_with("hbm", None).answers)


def test_packed_takes_no_slot_beyond_those_of_its_tokens():
    clustered, plain = (
        converse(build_system(settings_of(algo), SHAPE, TIGHT_BUDGET))
        for algo in ("retroinfer", "quest")
    )
    count = clustered.memory.counters.current
    assert count.slots_placed > 0
    assert count.slots_padding == 0
    assert clustered.memory.tiers[0].peak_frames == plain.memory.tiers[0].peak_frames


@pytest.mark.parametrize("page_tokens", [5, 8, 16])
def test_padding_is_what_the_pages_of_clusters_do_not_hold(page_tokens):
    options = settings_of("retroinfer", "padded", page_tokens=page_tokens)
    system = build_system(options, SHAPE, TIGHT_BUDGET)
    system.context("long", LENGTHS["long"])
    for _ in range(20):
        system.decode("long")
    table, layout = system.memory.table, system.attention.index._layout
    framed_RP = (frames_of(system.memory)[0] >= 0).view(-1, table.pages_per_row)
    pages = int(framed_RP[:, table.token_pages :].sum())
    sinks = system.attention.algorithm.retrieve.sinks
    covered = layout.covered(0, system.holds["long"]).tokens
    tokens = covered - sinks
    # Pages that clusters have left are given back; sinks and newest tokens stay where they were.
    newest = range(covered // page_tokens, -(-system.stored["long"] // page_tokens))
    expected_P = torch.zeros(table.token_pages, dtype=torch.bool)
    expected_P[[0, *newest]] = True
    assert (framed_RP[framed_RP.any(1)][:, : table.token_pages] == expected_P).all()
    count = system.memory.counters.current
    assert count.slots_placed == pages * page_tokens
    held = tokens * SHAPE.layers * SHAPE.kv_heads
    assert count.slots_padding == count.slots_placed - held > 0


@partitions
def test_a_sequence_takes_no_more_pages_than_it_was_promised(partition):
    system = build_system(settings_of("retroinfer", partition, max_batch=1), SHAPE, TIGHT_BUDGET)
    system.context("long", LENGTHS["long"])
    for _ in range(60):
        system.decode("long")
        promised = system.attention.pages_for(system.stored["long"])
        assert int((system.memory.fast.page_of_F >= 0).sum()) <= promised
    assert system.memory.tiers[0].peak_frames <= promised
