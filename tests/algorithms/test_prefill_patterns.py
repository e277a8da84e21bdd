"""Prefill patterns choose what their papers say, and what they choose is attended exactly."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from backends.attention.blocks import count_pairs
from backends.attention.reference import Reference
from sparse_algos.coverage import covering, num_covering
from sparse_algos.lines import lines_of
from sparse_algos.pattern import BlockPlan, Chunk, PrefillPattern
from sparse_algos.prefill.a_shape import AShape
from sparse_algos.prefill.flexprefill import FlexPrefill, pooled
from sparse_algos.prefill.minference import MInference
from sparse_algos.prefill.xattention import ROWS_AT_ONCE, XAttention
from tests.algorithms import plain_patterns as plain
from tests.algorithms.plain_patterns import seen_by
from tests.laws.configs import settings_of
from tests.laws.system import Shape, build_system

BASE = {"block_tokens": 8, "dense_tokens": 0}
MAKERS = {
    "a_shape": lambda **change: AShape(**BASE | {"sinks": 3, "local_tokens": 10} | change),
    "minference": lambda **change: MInference(
        **BASE | {"vertical": 5, "slash": 3, "last_rows": 12, "sinks": 2, "recents": 1} | change
    ),
    "flexprefill": lambda **change: FlexPrefill(
        **BASE | {"gamma": 0.6, "tau": 0.25, "least_tokens": 8} | change
    ),
    "xattention": lambda **change: XAttention(**BASE | {"stride": 4, "threshold": 0.7} | change),
}
names = pytest.mark.parametrize("name", MAKERS)
# Rows before the chunk, and rows of it: one token, whole blocks, parts of blocks, one row.
PIECES = [(0, 1), (0, 32), (0, 45), (24, 16), (19, 30), (40, 1), (5, 2)]
pieces = pytest.mark.parametrize(("past", "new"), PIECES)
KINDS = ("random", "sharp", "huge", "equal keys", "no query", "one head stands out")
TIES, LINES = ("equal keys", "no query"), ("minference", "flexprefill")
kinds = pytest.mark.parametrize("kind", KINDS)

# Without the sums of several rows that are equal up to rounding.
COMPARED = [
    (name, past, new, kind)
    for name in MAKERS
    for past, new in PIECES
    for kind in KINDS
    if kind not in TIES or name not in LINES or new == 1
]


def chunk_of(kind: str, past: int, new: int) -> Chunk:
    """Two kv heads of three query heads each, 6 dimensions."""
    generator = torch.Generator().manual_seed(past * 100 + new)
    query = torch.randn(2, 3, new, 6, generator=generator)
    key = torch.randn(2, past + new, 6, generator=generator)
    if kind == "sharp":
        query = query * 4
    if kind == "huge":
        key[:, ::7] *= 8
    if kind == "equal keys":
        key = key[:, :1].round().expand_as(key).contiguous()
        query = query.round()
    if kind == "no query":
        query = torch.zeros_like(query)
    if kind == "one head stands out":
        query[1, 2] *= 20
    return Chunk(query, key, past + new, 0.5)


def expected(name: str, pattern: PrefillPattern, chunk: Chunk) -> tuple[Tensor, list[set[int]]]:
    """The blocks of the plain evaluation, with the forced ones, and the columns of each head."""
    answer = getattr(plain, f"plain_{name}")(pattern, chunk)
    choice, columns = answer if isinstance(answer, tuple) else (answer, [])
    size, num_blocks = pattern.block_tokens, -(-chunk.num_tokens // pattern.block_tokens)
    first = chunk.past // size
    blocks_HIP = torch.zeros(chunk.num_heads, num_blocks - first, num_blocks, dtype=torch.bool)
    for (head, row), chosen in choice.items():
        for block in chosen | {0, row}:
            if block <= row:
                blocks_HIP[head, row - first, block] = True
    return blocks_HIP, columns


@pytest.mark.parametrize(("name", "past", "new", "kind"), COMPARED)
def test_a_pattern_chooses_what_its_paper_says(name, past, new, kind):
    pattern, chunk = MAKERS[name](), chunk_of(kind, past, new)
    blocks_HIP, columns = expected(name, pattern, chunk)
    plan = pattern.plan(chunk)
    assert torch.equal(plan.blocks_HIP, blocks_HIP)
    if columns:
        assert [set(one) for one in plan.columns_HC.tolist()] == columns


def test_xattention_takes_more_rows_than_one_product_holds():
    pattern, chunk = MAKERS["xattention"](), chunk_of("sharp", 5, 598)
    assert 604 // pattern.stride > ROWS_AT_ONCE
    blocks_HIP, _ = expected("xattention", pattern, chunk)
    assert torch.equal(pattern.plan(chunk).blocks_HIP, blocks_HIP)
    # Of the two folded rows of a block, the first block's first and the last's last are padding.
    sums_HI = torch.tensor([1.0, *[2.0] * 74, 1.0]).expand(6, -1)
    assert torch.allclose(pattern.estimate(chunk).sum(2), sums_HI)


@names
def test_settings_of_the_tests_skip_something(name):
    blocks_HIP = MAKERS[name]().plan(chunk_of("sharp", 0, 60)).blocks_HIP
    assert blocks_HIP.sum() < 0.9 * torch.ones_like(blocks_HIP).tril().sum()


def test_both_patterns_of_flexprefill_take_part():
    chunk = chunk_of("one head stands out", 0, 45)
    aware, lines = (MAKERS["flexprefill"](tau=tau).plan(chunk).blocks_HIP for tau in (1.0, 0.0))
    mixed = MAKERS["flexprefill"]().plan(chunk).blocks_HIP
    assert not torch.equal(aware, lines)
    assert (mixed == aware).flatten(1).all(1).any()
    assert (mixed == lines).flatten(1).all(1).any()


def attended(plan: BlockPlan, chunk: Chunk, values: Tensor, rest: float) -> Tensor:
    """What the blocks answer, where keys and values that nobody chose hold `rest`."""
    after = plan.blocks_HIP.shape[2] * plan.block_tokens - chunk.num_tokens
    kv = torch.stack((chunk.key_KTD, values))
    seen_KT = seen_by(plan, chunk.past, chunk.num_tokens - chunk.past).any(1).unflatten(0, (2, 3))
    kv = pad(kv.masked_fill(~seen_KT.any(1)[None, :, :, None], rest), (0, 0, 0, after))
    return Reference().prefill_blocks(plan, replace(chunk, key_KTD=kv[0]), kv[1])


@names
@pieces
@pytest.mark.parametrize("kind", ["random", "sharp"])
def test_what_was_chosen_is_attended_exactly_and_nothing_else_is_read(name, past, new, kind):
    chunk = chunk_of(kind, past, new)
    values = torch.randn(2, past + new, 6, generator=torch.Generator().manual_seed(1))
    plan = MAKERS[name]().plan(chunk)
    seen_HMT = seen_by(plan, past, new)
    logits = torch.einsum("kgmd,ktd->kgmt", chunk.query_KGMD, chunk.key_KTD).double() * chunk.scale
    weights = logits.masked_fill(~seen_HMT.unflatten(0, (2, 3)), -torch.inf).softmax(-1)
    exact = torch.einsum("kgmt,ktd->kgmd", weights, values.double())
    out = attended(plan, chunk, values, torch.nan)
    assert (out - exact).abs().amax() < 2e-5
    pairs = count_pairs(plan, past, new)
    assert pairs.computed == int(seen_HMT.sum())
    assert pairs.causal == 6 * sum(range(past + 1, past + new + 1))


@names
@pieces
@kinds
def test_each_row_attends_itself_and_the_first_block_and_never_the_future(name, past, new, kind):
    plan = MAKERS[name]().plan(chunk_of(kind, past, new))
    seen_HMT = seen_by(plan, past, new)
    assert seen_HMT.diagonal(past, 1, 2).all()
    assert seen_HMT[:, :, 0].all()
    num_blocks = plan.blocks_HIP.shape[2]
    future_IP = torch.ones(num_blocks, num_blocks, dtype=torch.bool).triu(1)[plan.first_block :]
    assert not (plan.blocks_HIP & future_IP).any()


@names
@pieces
def test_a_pattern_that_keeps_all_and_one_below_its_least_length_are_dense(name, past, new):
    chunk = chunk_of("sharp", past, new)
    for pattern in (MAKERS[name]().keeping_all(), MAKERS[name](dense_tokens=past + new)):
        pairs = count_pairs(pattern.plan(chunk), past, new)
        assert pairs.computed == pairs.causal
    pairs = count_pairs(MAKERS[name](dense_tokens=44).plan(chunk_of("sharp", 0, 45)), 0, 45)
    assert pairs.computed < pairs.causal


class Nothing(PrefillPattern):
    """Chooses no block at all."""

    def choose(self, chunk: Chunk) -> BlockPlan:
        num_blocks = -(-chunk.num_tokens // self.block_tokens)
        first = chunk.past // self.block_tokens
        blocks_HIP = torch.zeros(chunk.num_heads, num_blocks - first, num_blocks, dtype=torch.bool)
        return BlockPlan(self.block_tokens, blocks_HIP)

    def keeping_all(self) -> "Nothing":
        raise NotImplementedError


@pieces
def test_a_choice_of_nothing_leaves_the_first_block_and_the_rows_own(past, new):
    plan = Nothing(**BASE).plan(chunk_of("random", past, new))
    for row, chosen_P in enumerate(plan.blocks_HIP[0].tolist(), plan.first_block):
        assert {at for at, is_chosen in enumerate(chosen_P) if is_chosen} == {0, row}


@pytest.mark.parametrize("past", [0, 3, 8, 13])
def test_means_of_blocks_are_over_the_tokens_that_are_there(past):
    vectors_TD = torch.randn(14, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    expected = plain.means(vectors_TD.tolist(), past, 8)
    pooled_PD = pooled(vectors_TD, 8, past)
    assert torch.allclose(pooled_PD, torch.tensor([expected[at] for at in sorted(expected)]))
    short_TD = vectors_TD.bfloat16()
    assert torch.equal(pooled(short_TD, 8, past), pooled(short_TD.float(), 8, past))


# XAttention folds rows inside blocks: its chunks have to end where blocks do.
CHUNKS = [("a_shape", (0, 20, 25, 45)), ("xattention", (0, 24, 32, 45))]


@pytest.mark.parametrize(("name", "edges"), CHUNKS)
def test_a_choice_per_row_does_not_depend_on_chunks(name, edges):
    pattern, whole = MAKERS[name](), chunk_of("sharp", 0, 45)
    blocks_HIP = pattern.plan(whole).blocks_HIP
    for start, stop in pairwise(edges):
        rows_KGMD = whole.query_KGMD[:, :, start:stop]
        plan = pattern.plan(Chunk(rows_KGMD, whole.key_KTD, stop, whole.scale))
        blocks = slice(plan.first_block, plan.blocks_HIP.shape[2])
        assert torch.equal(plan.blocks_HIP, blocks_HIP[:, blocks, : blocks.stop])


def test_last_rows_count_each_pair_once():
    chunk = chunk_of("sharp", 19, 30)
    lines = lines_of(chunk, 12)
    for mass_HT in (lines.columns_HT, lines.distances_HT):
        assert torch.allclose(mass_HT.sum(1), torch.full((6,), 12.0))


def test_a_cover_is_the_fewest_entries_that_reach_the_need():
    mass = torch.tensor([[0.1, 0.4, 0.1, 0.4], [0.25, 0.25, 0.25, 0.25]])
    need = torch.tensor([0.8, 0.5])
    assert covering(mass, need).tolist() == [[False, True, False, True], [True, True, False, False]]
    first = torch.tensor([[True, False, False, False]] * 2)
    assert covering(mass, need, first).tolist() == [
        [True, True, False, True],
        [True, True, False, False],
    ]
    assert num_covering(mass, 0.81).tolist() == [3, 4]
    assert num_covering(mass, 1.1).tolist() == [4, 4]


def pages_read(algo: str) -> int:
    """Pages before its chunks that a prompt of 121 tokens reads, with a window of 24 or none."""
    system = build_system(settings_of(algo), Shape(layers=1))
    system.context("long", 121)
    return system.memory.counters.current.pages_read


def test_a_shape_reads_no_page_that_no_block_needs():
    # Chunks of 32 and pages of 16 tokens: before each chunk the first page, and the last two.
    assert pages_read("a_shape") == 2 * (0 + 2 + 3 + 3)
    assert pages_read("dense") == 2 * (0 + 2 + 4 + 6)


REFUSED = [
    ("a_shape", "block_tokens", 0),
    ("a_shape", "dense_tokens", -1),
    ("a_shape", "sinks", -1),
    ("a_shape", "local_tokens", 0),
    ("minference", "last_rows", 0),
    ("minference", "vertical", 0),
    ("minference", "slash", "many"),
    ("minference", "vertical", 1),
    ("minference", "slash", 0),
    ("flexprefill", "gamma", 0.0),
    ("flexprefill", "gamma", 1.5),
    ("flexprefill", "tau", -0.1),
    ("flexprefill", "least_tokens", 0),
    ("xattention", "stride", 3),
    ("xattention", "stride", 0),
    ("xattention", "threshold", 0.0),
    ("xattention", "threshold", "most"),
]


@pytest.mark.parametrize(("name", "key", "value"), REFUSED)
def test_settings_that_cannot_be_meant_are_refused_by_their_key(name, key, value):
    with pytest.raises(ValueError, match=rf"^algo\.prefill\.{key}=[^\n]*$") as refusal:
        MAKERS[name](**{key: value})
    assert repr(value) in str(refusal.value)
