"""What each retriever scores and selects, against plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_algos.retrieve.oracle_topk import OracleTopK
from sparse_algos.retrieve.quest import Quest
from sparse_algos.retriever import Retriever
from sparse_algos.selection import Selection, Visible
from tests.algorithms.inputs import keys_of, queries_of

DIM, BLOCK = 8, 4
examples = settings(max_examples=60)
SEEDS = st.integers(0, 10_000)
REDUCTIONS = ("max", "mean", "mass", "peak")


def quest(**changes) -> Quest:
    plain = {
        "budget_tokens": 24,
        "sinks": 2,
        "recents": 4,
        "group_reduce": "max",
        "block_tokens": BLOCK,
    }
    return Quest(**plain | changes)


def oracle(**changes) -> OracleTopK:
    plain = {"budget_tokens": 12, "sinks": 2, "recents": 3, "group_reduce": "mass"}
    return OracleTopK(**plain | changes)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def picked(selection: Selection) -> list[list[int]]:
    """Partitions of each row, as lists."""
    pairs = zip(selection.partitions_RC, selection.valid_RC, strict=True)
    return [partitions_C[valid_C].tolist() for partitions_C, valid_C in pairs]


def plain_choice(
    retriever: Retriever, scores_GP: Tensor, num_tokens: int, alive: list[bool]
) -> list[int]:
    """Sinks and recents, then the best of the others, one partition after the other."""
    size = retriever.partition_size
    there = [p for p in range(len(alive)) if p * size < num_tokens and alive[p]]
    forced = [
        p
        for p in there
        if p * size < retriever.sinks or (p + 1) * size > num_tokens - retriever.recents
    ]
    worth = plain_worth(retriever.group_reduce, scores_GP, there)
    others = sorted((p for p in there if p not in forced), key=lambda p: -worth[p])
    room = retriever.most_tokens(num_tokens) // size
    return sorted([*forced, *others[: max(0, room - len(forced))]])


def plain_worth(how: str, scores_GP: Tensor, there: list[int]) -> dict[int, float]:
    """One number for each partition from those of the query heads."""
    rows = scores_GP.double().tolist()
    if how == "max":
        return {p: max(row[p] for row in rows) for p in there}
    if how == "mean":
        return {p: sum(row[p] for row in rows) / len(rows) for p in there}
    total = max if how == "peak" else sum
    totals = [sum(math.exp(row[p]) for p in there) for row in rows]
    return {
        p: total(math.exp(row[p]) / each for row, each in zip(rows, totals, strict=True))
        for p in there
    }


@examples
@given(seed=SEEDS, live=st.integers(1, BLOCK), scale=st.floats(0.01, 100))
def test_a_quest_score_bounds_every_product_in_its_block(seed, live, scale):
    keys_NSD, query_1QD = random(seed, 5, BLOCK, DIM) * scale, random(seed + 1, 1, 3, DIM)
    live_NS = (torch.arange(BLOCK) < live).expand(5, -1)
    bounds = quest().build(keys_of(keys_NSD.unsqueeze(0), live_NS.unsqueeze(0)))
    scores_QP = quest().score(bounds, queries_of(query_1QD, 5))[0]
    products_QPS = torch.einsum("qd,psd->qps", query_1QD[0], keys_NSD[:, :live])
    assert (scores_QP >= products_QPS.amax(-1) - 1e-4 * scale).all()
    assert (scores_QP - products_QPS.amax(-1)).max() > 0 or live == 1


@examples
@given(seed=SEEDS)
def test_a_quest_score_is_the_formula_of_the_paper(seed):
    keys_NSD, query_1QD = random(seed, 3, BLOCK, DIM), random(seed + 1, 1, 2, DIM)
    built = quest().build(keys_of(keys_NSD.unsqueeze(0)))
    scores_QP = quest().score(built, queries_of(query_1QD, 3))[0]
    for q in range(2):
        for p in range(3):
            bound = 0.0
            for d in range(DIM):
                channel = [float(keys_NSD[p, s, d]) for s in range(BLOCK)]
                factor = float(query_1QD[0, q, d])
                bound += max(factor * min(channel), factor * max(channel))
            assert float(scores_QP[q, p]) == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize("make", [quest, oracle])
@pytest.mark.parametrize("how", REDUCTIONS)
@examples
@given(
    seed=SEEDS,
    lengths=st.lists(st.integers(1, 80), min_size=1, max_size=4),
    budget=st.sampled_from([24, 40, 0.3, 0.75]),
    holes=st.booleans(),
)
def test_a_selection_is_the_plain_loop(make, how, seed, lengths, budget, holes):
    retriever = make(group_reduce=how, budget_tokens=budget)
    longest = max(lengths)
    partitions = -(-longest // retriever.partition_size)
    scores_RGP = random(seed, len(lengths), 2, partitions)
    alive_RP = random(seed + 1, len(lengths), partitions) > -0.5
    visible = Visible(torch.tensor(lengths), longest, alive_RP if holes else None)
    expected = [
        plain_choice(
            retriever, scores_GP, tokens, alive_P.tolist() if holes else [True] * partitions
        )
        for scores_GP, alive_P, tokens in zip(scores_RGP, alive_RP, lengths, strict=True)
    ]
    assert picked(retriever.select(scores_RGP, visible)) == expected


@examples
@given(seed=SEEDS, budget=st.floats(0.01, 0.99), length=st.integers(1, 3000))
def test_a_share_is_the_same_amount_alone_and_among_others(seed, budget, length):
    retriever = oracle(budget_tokens=budget, sinks=0, recents=1)
    scores_RGP = random(seed, 2, 1, 3000)
    visible = Visible(torch.tensor([length, 3000]), 3000)
    chosen = picked(retriever.select(scores_RGP, visible))
    assert [len(row) for row in chosen] == [retriever.most_tokens(n) for n in (length, 3000)]


@pytest.mark.parametrize("share", [0.15, 0.3, 0.6])
def test_a_share_is_not_rounded_up_by_float32(share):
    retriever = oracle(budget_tokens=share, sinks=0, recents=1)
    lengths = torch.arange(1, 400)
    scores_RGP = random(0, len(lengths), 1, 399)
    chosen = picked(retriever.select(scores_RGP, Visible(lengths, 399)))
    assert [len(row) for row in chosen] == [math.ceil(share * n) for n in lengths.tolist()]


@examples
@given(seed=SEEDS, length=st.integers(13, 60))
def test_the_oracle_reads_the_tokens_of_largest_attention(seed, length):
    retriever = oracle()
    keys_TD, query_1GD = random(seed, length, DIM), random(seed + 1, 1, 2, DIM)
    built = retriever.build(keys_of(keys_TD.view(1, length, 1, DIM)))
    scores_RGP = retriever.score(built, queries_of(query_1GD, length))
    (chosen,) = picked(retriever.select(scores_RGP, Visible(torch.tensor([length]), length)))
    weights_T = (query_1GD[0].double() @ keys_TD.double().T * DIM**-0.5).softmax(-1).sum(0)
    forced = {0, 1, length - 3, length - 2, length - 1}
    others = [token for token in weights_T.argsort(descending=True).tolist() if token not in forced]
    assert set(chosen) == forced | set(others[: 12 - len(forced)])


@pytest.mark.parametrize("make", [quest, oracle])
@pytest.mark.parametrize("how", REDUCTIONS)
def test_scores_of_what_is_not_there_never_matter(make, how):
    retriever = make(group_reduce=how)
    scores_RGP = random(0, 2, 2, 20)
    lengths = torch.tensor([9, 14])
    absent_RP = torch.arange(20) * retriever.partition_size >= lengths.unsqueeze(1)
    clean = retriever.select(scores_RGP, Visible(lengths, 80))
    for junk in (torch.nan, torch.inf, 1e30):
        dirty_RGP = scores_RGP.masked_fill(absent_RP.unsqueeze(1), junk)
        assert picked(retriever.select(dirty_RGP, Visible(lengths, 80))) == picked(clean)


@pytest.mark.parametrize("make", [quest, oracle])
@pytest.mark.parametrize("how", REDUCTIONS)
def test_a_row_whose_partitions_are_all_gone_reads_nothing(make, how):
    alive_RP = torch.ones(2, 20, dtype=torch.bool)
    alive_RP[0] = False
    visible = Visible(torch.tensor([20, 20]), 20, alive_RP)
    first, second = picked(make(group_reduce=how).select(random(0, 2, 2, 20), visible))
    assert first == []
    assert second


@pytest.mark.parametrize("sinks", [0, 1, 4, 5])
@pytest.mark.parametrize("recents", [1, 4, 5])
def test_the_least_budget_holds_every_sink_and_recent(sinks, recents):
    least = quest(sinks=sinks, recents=recents, budget_tokens=1000).least_budget
    retriever = quest(sinks=sinks, recents=recents, budget_tokens=least)
    for length in range(1, 40):
        scores_RGP = torch.arange(float(-(-length // BLOCK))).sin().view(1, 1, -1)
        (chosen,) = picked(retriever.select(scores_RGP, Visible(torch.tensor([length]), length)))
        read = {p * BLOCK + s for p in chosen for s in range(BLOCK)}
        assert set(range(min(sinks, length))) <= read
        assert set(range(max(0, length - recents), length)) <= read


def test_a_score_of_its_own_excludes_a_scored_vector():
    with pytest.raises(TypeError, match="scored = None"):
        type("Contradictory", (Quest,), {"score": lambda *_: None})
