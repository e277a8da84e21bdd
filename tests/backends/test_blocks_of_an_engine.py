"""Attention over blocks that another engine's scheduler gives out, without that engine."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backends.attention.select import choose_kernel
from backends.vllm.composition import Composition
from backends.vllm.hosted import Hosting
from backends.vllm.pages import BlockLayout
from backends.vllm.rows import Limits, Member, sort_rows
from backends.vllm.runtime import Runtime
from harness.build import build_algorithm, build_mapper
from memory_tiers.base import KVGeometry
from memory_tiers.level import Level
from memory_tiers.page_table import PageTable
from memory_tiers.policies.bucketed_lru import BucketedLru
from memory_tiers.tables.flat import Flat
from memory_tiers.tiers.cpu import HostMemory
from memory_tiers.tiers.hbm import Hbm
from sparse_algos.base import Algorithm
from sparse_algos.index_data import Keys
from sparse_algos.model_shape import ModelShape, Rotary
from tests.laws.configs import PAGE_TOKENS, fitted, options, settings_of

HEADS, GROUP, DIM, LAYERS = 2, 2, 64, 3
BLOCK, NUM_BLOCKS = 64, 24
MODEL = ModelShape(
    name="toy",
    num_layers=LAYERS,
    num_heads=HEADS * GROUP,
    num_kv_heads=HEADS,
    head_dim=DIM,
    rotary=Rotary(1e4 ** -torch.arange(0, 1, 2 / DIM)),
)
LENGTHS = (150, 33, 64)
# Of NUM_BLOCKS * BLOCK / 16 pages by head and layer, 576.
FAST_FRAMES = 48
STEPS = 20


def composition_of(
    name: str, budget_tokens: int | float = 64, hosting: Hosting | None = None
) -> Composition:
    """The part of a system that runs inside another engine."""
    settings = settings_of(name)
    algorithm: Algorithm = build_algorithm(settings)
    if algorithm.retrieve is not None:
        retrieve = replace(fitted(algorithm.retrieve, MODEL), budget_tokens=budget_tokens)
        algorithm = replace(algorithm, retrieve=retrieve)
    return Composition(
        algorithm=algorithm,
        mapper=build_mapper(settings, algorithm),
        page_tokens=PAGE_TOKENS,
        kernel="auto",
        hosting=hosting,
    )


def hosting_of(num_fast_frames: int) -> Hosting:
    """A fast level of so many frames over one that holds all pages."""

    def levels(blocks: PageTable) -> tuple[Level, ...]:
        device, geometry = torch.device("cpu"), blocks.geometry
        fast = Hbm("hbm", num_fast_frames, geometry)
        below = HostMemory("cpu", geometry.pages_for(blocks.max_tokens), geometry)
        return (
            Level(fast, Flat(blocks.num_pages, device), BucketedLru(buckets=8), blocks),
            Level(below, Flat(blocks.num_pages, device), None),
        )

    return Hosting(refusals=lambda *_: [], levels=levels, window=4)


def layout_of(composition: Composition, block_tokens: int = BLOCK) -> BlockLayout:
    retrieve = composition.algorithm.retrieve
    return BlockLayout(
        block_tokens=block_tokens,
        page_tokens=composition.page_tokens,
        partition_size=1 if retrieve is None else retrieve.partition_size,
        num_kv_heads=HEADS,
        head_dim=DIM,
    )


def runtime_of(composition: Composition) -> Runtime:
    """Over caches that hold another engine's garbage."""
    geometry = KVGeometry(
        num_layers=LAYERS,
        num_kv_heads=HEADS,
        head_dim=DIM,
        page_tokens=PAGE_TOKENS,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    layout = layout_of(composition)
    shape = (NUM_BLOCKS, HEADS, BLOCK, 2 * DIM if composition.hosting is None else 1)
    caches = [torch.full(shape, torch.nan) for _ in range(LAYERS)]
    kernel = choose_kernel(
        "auto", device="cpu", dtype=torch.float32, head_dim=DIM, page_size=PAGE_TOKENS
    )
    limits = Limits(num_sequences=4, step_tokens=256, max_tokens=256)
    return Runtime(composition, geometry, layout, limits, kernel, caches)


def rows_of(uid: int, start: int, stop: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of tokens of a sequence."""
    generator = torch.Generator().manual_seed(100 * uid + layer)
    made = torch.randn(256, HEADS * GROUP + 2 * HEADS, DIM, generator=generator)[start:stop]
    return made.split((HEADS * GROUP, HEADS, HEADS), dim=1)


def attended(runtime: Runtime, uids: list[int], members: list[Member], blocks) -> list[Tensor]:
    """What each request of a step is told, [L, M, H, D]."""
    width = max(len(blocks[uid]) for uid in uids)
    table = [blocks[uid] + [0] * (width - len(blocks[uid])) for uid in uids]
    step = runtime.begin(members, torch.tensor(table, dtype=torch.int32))
    spans = [
        (uid, one.stored, one.stored + one.new) for uid, one in zip(uids, members, strict=True)
    ]
    told = []
    for layer in range(LAYERS):
        parts = [torch.cat(each) for each in zip(*(rows_of(*s, layer) for s in spans), strict=True)]
        told.append(step.attend(layer, *parts, DIM**-0.5))
    sizes = [one.new for one in members]
    return list(torch.stack(told).split(sizes, dim=1))


def converse(runtime: Runtime, blocks: list[list[int]]) -> list[Tensor]:
    """Prompts in chunks, then answers, of three sequences together: [L, T, H, D] of each."""
    said: list[list[Tensor]] = [[] for _ in LENGTHS]
    done = [0] * len(LENGTHS)
    for number in range(STEPS):
        uids, members = [], []
        for uid, length in enumerate(LENGTHS):
            if number < uid:  # they come one after the other
                continue
            new = min(70, length - done[uid]) if done[uid] < length else 1
            uids.append(uid)
            members.append(Member(done[uid], new, length - 10, length))
        for uid, one, told in zip(
            uids, members, attended(runtime, uids, members, blocks), strict=True
        ):
            said[uid].append(told)
            done[uid] += one.new
    return [torch.cat(each, dim=1) for each in said]


def dense(uid: int, count: int, layer: int) -> Tensor:
    """Causal attention over the first tokens of a sequence, [T, H, D]."""
    query_THD, key_TKD, value_TKD = rows_of(uid, 0, count, layer)
    query, key, value = (one.transpose(0, 1) for one in (query_THD, key_TKD, value_TKD))
    out = torch.nn.functional.scaled_dot_product_attention(
        query, key.repeat_interleave(GROUP, 0), value.repeat_interleave(GROUP, 0), is_causal=True
    )
    return out.transpose(0, 1)


IN_ORDER = [[1, 2, 3], [4], [5, 6]]
SCATTERED = [[17, 3, 11], [22], [8, 2]]
SERVED = [name for name in options("algo") if not composition_of(name).refusals()]


def test_what_is_served_inside_vllm():
    assert SERVED == ["arkvale", "dense", "double_sparsity", "loki", "oracle_topk", "oracle_topp",
                      "quest", "random", "seerattention_r", "shadowkv", "tidaldecode"]  # fmt: skip


@pytest.mark.parametrize("name", SERVED)
def test_a_full_budget_over_blocks_is_dense_attention(name):
    runtime = runtime_of(composition_of(name, budget_tokens=256))
    for uid, told in enumerate(converse(runtime, SCATTERED)):
        for layer in range(LAYERS):
            expected = dense(uid, told.shape[1], layer)
            torch.testing.assert_close(told[layer], expected, rtol=1e-4, atol=1e-5)
    assert name == "dense" or runtime.num_rows[2, True] > STEPS


@pytest.mark.parametrize("name", SERVED)
def test_which_blocks_a_sequence_has_never_changes_its_answers(name):
    one, other = runtime_of(composition_of(name)), runtime_of(composition_of(name))
    for first, second in zip(converse(one, IN_ORDER), converse(other, SCATTERED), strict=True):
        assert torch.equal(first, second)
    decode = one.memory.counters.decode
    assert name == "dense" or decode.slots_wanted < decode.slots_context


@pytest.mark.parametrize("name", SERVED)
def test_where_the_pages_of_blocks_are_never_changes_an_answer(name):
    """The fast level holds what a step of a layer reads, of all that there is a twelfth."""
    hosted = runtime_of(composition_of(name, hosting=hosting_of(FAST_FRAMES)))
    for blocks in (SCATTERED, IN_ORDER):  # the second time, blocks hold what the first one left
        expected = converse(runtime_of(composition_of(name)), blocks)
        for first, second in zip(converse(hosted, blocks), expected, strict=True):
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    decode = hosted.memory.counters.decode
    assert decode.bytes_moved["cpu->hbm"] > 0
    assert 0 < decode.pages_hit < decode.pages_wanted
    assert decode.pages_mandatory == decode.pages_read


def test_what_was_in_a_block_that_is_given_out_anew_is_not_moved():
    hosted = runtime_of(composition_of("dense", hosting=hosting_of(FAST_FRAMES)))
    blocks = {0: [7], 1: [1, 2, 3], 2: [7]}
    for uid, length in ((0, 60), (1, 150), (2, 60)):  # the second one needs all of the fast level
        attended(hosted, [uid], [Member(0, length, length, length)], blocks)
    moved = hosted.memory.counters.prefill.bytes_moved
    assert moved["hbm->cpu"] > 0
    assert moved["cpu->hbm"] == 0


@pytest.mark.parametrize("name", ["quest", "arkvale", "seerattention_r", "shadowkv"])
def test_summaries_of_blocks_are_those_of_the_keys_in_them(name):
    runtime = runtime_of(composition_of(name))
    told = converse(runtime, SCATTERED)
    retrieve = runtime.composition.algorithm.retrieve
    size = retrieve.partition_size
    for uid, one in enumerate(told):
        count = (one.shape[1] - (retrieve.waits or 0)) // size
        rows_K = torch.arange(HEADS) + uid * HEADS
        for layer in range(LAYERS):
            key_KTD = rows_of(uid, 0, count * size, layer)[1].transpose(0, 1)
            key_KPSD = key_KTD.unflatten(1, (-1, size))
            live_KPS = torch.ones(key_KPSD.shape[:3], dtype=torch.bool)
            first_K = torch.zeros(HEADS, dtype=torch.int64)
            runtime.summaries.enter(layer)
            kept = runtime.summaries.read(rows_K, count)
            for key, built in retrieve.build(Keys(key_KPSD, live_KPS, first_K, layer)).items():
                torch.testing.assert_close(kept[key], built, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hosting", [None, FAST_FRAMES])
@pytest.mark.parametrize("name", ["quest", "arkvale", "tidaldecode", "dense"])
def test_a_block_that_is_shared_serves_who_did_not_write_it(name, hosting):
    """The second sequence has the first one's tokens, and its first two blocks."""
    hosting = hosting and hosting_of(hosting)
    runtime, blocks = runtime_of(composition_of(name, hosting=hosting)), {0: [5, 9, 2]}
    whole = attended(runtime, [0], [Member(0, 150, 150, 150)], blocks)[0]
    assert whole.shape[1] == 150
    expected = attended(runtime, [0], [Member(150, 1, 150, 150)], blocks)[0]
    shared = {0: [5, 9, 20]}
    attended(runtime, [0], [Member(128, 22, 150, 150)], shared)
    told = attended(runtime, [0], [Member(150, 1, 150, 150)], shared)[0]
    torch.testing.assert_close(told, expected, rtol=1e-5, atol=1e-6)
    table_BW = torch.tensor([blocks[0], shared[0]], dtype=torch.int32)
    twins = runtime.begin([Member(150, 1, 150, 150)] * 2, table_BW)
    for layer in range(LAYERS):
        doubled = (torch.cat((one, one)) for one in rows_of(0, 150, 151, layer))
        for told in twins.attend(layer, *doubled, DIM**-0.5):
            torch.testing.assert_close(told, expected[layer, 0], rtol=1e-5, atol=1e-6)
    if hosting is not None:
        page_of_F = runtime.memory.fast.page_of_F
        held_N = page_of_F[page_of_F >= 0]
        assert len(held_N.unique()) == len(held_N), "a page took two frames"


@given(
    st.lists(
        st.tuples(st.integers(0, 90), st.integers(1, 40), st.integers(0, 60), st.integers(0, 20)),
        min_size=1,
        max_size=6,
    )
)
def test_every_row_of_a_step_goes_one_way(drawn):
    members = [Member(stored, new, context, context + more) for stored, new, context, more in drawn]
    rows = sort_rows(members)
    total = sum(member.new for member in members)
    assert rows.num_rows == total
    order = list(range(total)) if rows.order_N is None else rows.order_N.tolist()
    assert sorted(order) == list(range(total))
    for slot in rows.decode:
        assert members[slot].new == 1
        assert members[slot].stored >= members[slot].num_prompt
    for piece in rows.pieces:
        member = members[piece.slot]
        stop = piece.stored + piece.num_rows
        assert member.stored <= piece.stored < stop <= member.stored + member.new
        if piece.is_question:
            assert piece.stored >= member.num_context
        else:
            assert stop <= member.num_context
            assert piece.ends_context == (stop == member.num_context)


def test_a_prompt_of_one_token_is_no_answer():
    rows = sort_rows([Member(0, 1, 1, 1), Member(7, 1, 5, 8), Member(8, 1, 5, 8)])
    assert rows.decode == (2,)
    assert [piece.is_question for piece in rows.pieces] == [False, True]
    assert rows.order_N.tolist() == [2, 0, 1]
