"""Retrievers choose what the formulas of their papers say, on friendly and on hostile keys."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_algos.retrieve.arkvale import ArkVale
from sparse_algos.retrieve.infllm import InfLLM
from sparse_algos.retrieve.oracle_topp import OracleTopP
from sparse_algos.retrieve.random import Random
from sparse_algos.retrieve.shadowkv import ShadowKV
from sparse_algos.retriever import Retriever
from sparse_algos.selection import Visible
from tests.algorithms import plain_ranks
from tests.algorithms.inputs import keys_of, queries_of, shape_of
from tests.laws.configs import settings_of
from tests.laws.laws import TIGHT_BUDGET, converse
from tests.laws.system import Shape, build_system, stream_of

HEADS, GROUP, DIM = 2, 2, 8
PLAIN: dict[str, Any] = {"budget_tokens": 32, "sinks": 2, "recents": 5}
RETRIEVERS: dict[str, Retriever] = {
    "arkvale": ArkVale(**PLAIN, group_reduce="max", block_tokens=4),
    "infllm": InfLLM(
        **PLAIN,
        group_reduce="mean",
        pool_heads=True,
        block_tokens=4,
        representatives=2,
        local_tokens=5,
    ),
    "shadowkv": ShadowKV(**PLAIN, group_reduce="peak", chunk_tokens=4, outlier_chunks=2),
}
HOSTILE = {
    "random": lambda one: one,
    "huge": lambda one: one * 1e4,
    "equal": lambda one: one[:, :1].expand_as(one).contiguous(),
    "repeated": lambda one: one[:, torch.arange(one.shape[1]) % 8],
    "zero": torch.zeros_like,
}


def built_over_junk(retriever: Retriever, keys_KTD: Tensor, query_KTD: Tensor) -> dict[str, Tensor]:
    """Summaries of the partitions that are due, with NaN where there is none yet."""
    size, length = retriever.partition_size, keys_KTD.shape[1]
    done, total = max(0, length - retriever.waits) // size, -(-length // size)
    spec = retriever.summary_spec(DIM, torch.float32)
    found = {
        name: torch.full((len(keys_KTD), total, *one.shape), torch.nan)
        for name, one in spec.items()
    }
    if done:
        keys = keys_of(keys_KTD[:, : done * size].unflatten(1, (done, size)), query_RTD=query_KTD)
        for name, one in retriever.build(keys).items():
            found[name][:, :done] = one
    return found


def chosen(retriever: Retriever, keys_KTD: Tensor, queries_KTGD: Tensor) -> list[set[int]]:
    """Partitions that the query of the last token reads, by kv head."""
    length = keys_KTD.shape[1]
    total = -(-length // retriever.partition_size)
    summaries = built_over_junk(retriever, keys_KTD, queries_KTGD.mean(2))
    scores_RGP = retriever.score(summaries, queries_of(queries_KTGD[:, -1], total))
    visible = Visible(torch.full((HEADS,), length), length, shortest=length, num_kv_heads=HEADS)
    weighed = {name: summaries[name] for name in retriever.weighed}
    selection = retriever.select(scores_RGP, visible, weighed)
    valid_RC = selection.valid_RC
    if valid_RC is None:
        valid_RC = torch.ones_like(selection.partitions_RC, dtype=torch.bool)
    return [
        set(partitions_C[valid_C].tolist())
        for partitions_C, valid_C in zip(selection.partitions_RC, valid_RC, strict=True)
    ]


def assert_best(taken: set[int], ranks: dict[int, float], must: set[int], room: int) -> None:
    """What must be read, and of the others those of the largest rank; ties as they fall."""
    assert must <= taken <= must | ranks.keys()
    assert len(taken) == min(room, len(must) + len(ranks))
    inside = [ranks[one] for one in taken - must]
    outside = [ranks[one] for one in ranks.keys() - taken]
    finite = [abs(rank) for rank in (*inside, *outside) if abs(rank) < plain_ranks.ALWAYS]
    slack = 1e-5 * max(finite, default=0.0)
    assert not inside or not outside or min(inside) >= max(outside) - slack


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", RETRIEVERS)
@settings(max_examples=6)
@given(seed=st.integers(0, 9999), length=st.sampled_from([1, 4, 5, 9, 32, 33, 64, 71]))
def test_a_choice_is_that_of_the_published_formula(name, hostile, seed, length):
    generator = torch.Generator().manual_seed(seed)
    keys_KTD = HOSTILE[hostile](torch.randn(HEADS, length, DIM, generator=generator))
    queries_KTGD = torch.randn(HEADS, length, GROUP, DIM, generator=generator)
    retriever, rank = RETRIEVERS[name], getattr(plain_ranks, name)
    must = plain_ranks.forced(retriever, length)
    room = retriever.budget_tokens // retriever.partition_size
    plain = keys_KTD.double().tolist(), queries_KTGD.double().tolist()
    for head, taken in enumerate(chosen(retriever, keys_KTD, queries_KTGD)):
        # Cosines of equal keys differ by rounding alone: any of them may be the outlier.
        if name == "shadowkv" and hostile in ("equal", "repeated", "zero"):
            assert must <= taken and len(taken) <= room
        else:
            assert_best(taken, rank(retriever, *plain, head, length - 1), must, room)


@pytest.mark.parametrize("name", RETRIEVERS)
def test_a_system_reads_what_the_published_formula_chooses(name):
    shape, layer = Shape(layers=2), 1
    system = converse(build_system(settings_of(name), shape, TIGHT_BUDGET))
    retriever, rank = system.attention.algorithm.retrieve, getattr(plain_ranks, name)
    room, skipped = TIGHT_BUDGET // retriever.partition_size, 0
    for read in [one for one in system.reads if one.layer == layer][-3:]:
        rows = (len(read.uids), shape.kv_heads, -1)
        times_BKMT = read.times_RT.view(*rows, read.times_RT.shape[1])
        for uid, seen_KM, times_KMT in zip(
            read.uids, read.seen_R.view(rows), times_BKMT, strict=True
        ):
            keys, queries = vectors_of(uid, shape, layer)
            length = int(seen_KM[0, -1])
            must = plain_ranks.forced(retriever, length)
            for head in range(shape.kv_heads):
                tokens = times_KMT[head, -1].nonzero().flatten().tolist()
                taken = {token // retriever.partition_size for token in tokens}
                ranks = rank(retriever, keys, queries, head, length - 1)
                assert_best(taken, ranks, must, room)
                skipped += len(must) + len(ranks) > room
    assert skipped, "nothing was skipped: the test is empty"


def vectors_of(uid: str, shape: Shape, layer: int) -> tuple[Any, Any]:
    """Keys and queries of a sequence as plain lists, kv heads outermost."""
    stream = stream_of(uid, shape)
    query_KTGD = stream.query[layer].unflatten(1, (shape.kv_heads, -1)).transpose(0, 1)
    return stream.key[layer].transpose(0, 1).tolist(), query_KTGD.tolist()


def test_top_p_reads_the_fewest_tokens_that_hold_enough_attention():
    generator = torch.Generator().manual_seed(3)
    counts = set()
    for length, share in ((1, 0.9), (12, 0.5), (60, 0.3), (60, 0.8), (60, 0.99), (60, 1)):
        settled = {"budget_tokens": 40, "sinks": 1, "recents": 2, "group_reduce": "mass"}
        retriever = OracleTopP(**settled, mass=share)
        keys_KTD = torch.randn(HEADS, length, DIM, generator=generator) * 2
        queries_KTGD = torch.randn(HEADS, length, GROUP, DIM, generator=generator)
        plain = keys_KTD.tolist(), queries_KTGD.tolist()
        for head, taken in enumerate(top_p_of(retriever, keys_KTD, queries_KTGD)):
            ranks = plain_ranks.oracle_topp(retriever, *plain, head, length - 1)
            assert taken == fewest(retriever, ranks, length)
            counts.add(len(taken))
    assert len(counts) > 5 and max(counts) == 40


def top_p_of(retriever: OracleTopP, keys_KTD: Tensor, queries_KTGD: Tensor) -> list[set[int]]:
    length = keys_KTD.shape[1]
    summaries = retriever.build(keys_of(keys_KTD.unsqueeze(2)))
    scores_RGP = retriever.score(summaries, queries_of(queries_KTGD[:, -1], length))
    selection = retriever.select(scores_RGP, Visible(torch.full((HEADS,), length), length))
    return [
        set(partitions_C[valid_C].tolist())
        for partitions_C, valid_C in zip(selection.partitions_RC, selection.valid_RC, strict=True)
    ]


def fewest(retriever: OracleTopP, ranks: dict[int, float], length: int) -> set[int]:
    """Sinks and recents, then token after token until they hold the mass or the budget is full."""
    taken = plain_ranks.forced(retriever, length)
    for token in sorted(ranks.keys() - taken, key=lambda one: -ranks[one]):
        held = sum(ranks[one] for one in taken)
        if len(taken) < retriever.budget_tokens and (held < retriever.mass or retriever.mass == 1):
            taken.add(token)
    return taken


def random_blocks(**changes: Any) -> Random:
    plain = {"budget_tokens": 64, "sinks": 0, "recents": 1, "group_reduce": "max"}
    return Random(**plain | {"block_tokens": 1, "seed": 0} | changes).fitted(shape_of())


def draws(retriever: Random, rows: int, partitions: int, *, layer: int = 0, at: int = 0) -> Tensor:
    """Scores of one query per row, [R, P]."""
    queries = queries_of(torch.zeros(rows, GROUP, DIM), partitions, layer=layer, position=at)
    scores_RGP = retriever.score({}, queries)
    assert torch.equal(scores_RGP[:, 0], scores_RGP[:, 1]), "a group draws together"
    return scores_RGP[:, 0]


def test_random_draws_are_even_and_differ_by_layer_head_position_and_seed():
    one_RP = draws(random_blocks(), HEADS, 4096)
    parts = torch.histc(one_RP / (1 << 24), bins=16, min=0, max=1) / one_RP.numel()
    assert (parts - 1 / 16).abs().max() < 0.01
    unlike = [
        one_RP[1],
        draws(random_blocks(seed=1), HEADS, 4096)[0],
        draws(random_blocks(), HEADS, 4096, layer=1)[0],
        draws(random_blocks(), HEADS, 4096, at=1)[0],
    ]
    for other_P in unlike:
        pair_2P = torch.stack((one_RP[0], other_P))
        assert torch.corrcoef(pair_2P)[0, 1].abs() < 0.06


def test_random_draws_do_not_depend_on_batch_mates():
    alone_RP, among_RP = draws(random_blocks(), HEADS, 50), draws(random_blocks(), 3 * HEADS, 90)
    for row in range(3 * HEADS):
        assert torch.equal(among_RP[row, :50], alone_RP[row % HEADS])


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: ArkVale(**PLAIN, group_reduce="max", block_tokens=0), "block_tokens=0"),
        (lambda: random_blocks(seed=-1), "seed=-1"),
        (lambda: random_blocks(block_tokens=0.5), "block_tokens=0.5"),
        (lambda: OracleTopP(**PLAIN, group_reduce="mass", mass=0.0), "mass=0.0"),
        (lambda: OracleTopP(**PLAIN, group_reduce="mass", mass="p"), "mass='p'"),
        (lambda: OracleTopP(**PLAIN, group_reduce="max", mass=0.9), "use mass"),
        (lambda: replace(RETRIEVERS["infllm"], representatives=5), "representatives=5"),
        (lambda: replace(RETRIEVERS["infllm"], local_tokens=6), "raise algo.retrieve.recents"),
        (lambda: replace(RETRIEVERS["infllm"], local_tokens=0), "local_tokens=0"),
        (lambda: replace(RETRIEVERS["shadowkv"], outlier_chunks=9), "outlier_chunks"),
        (lambda: replace(RETRIEVERS["shadowkv"], outlier_chunks=-1), "outlier_chunks=-1"),
        (lambda: replace(RETRIEVERS["shadowkv"], pool_heads=True), "pool_heads"),
    ],
)
def test_settings_that_cannot_be_served_name_their_key(make, key):
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.[^\n]*$") as refused:
        make()
    assert key in str(refused.value)
