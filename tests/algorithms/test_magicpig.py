"""MagicPIG against its formulas, a token and a head at a time."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backends.collisions import collisions, compiled_collisions
from memory_tiers.summary_store import Segments
from sparse_algos.retrieve.magicpig import MagicPig
from tests.algorithms.inputs import queries_of
from tests.laws.configs import settings_of
from tests.laws.system import Shape, System, algorithm_with, build_system, stream_of

SHAPE = Shape(layers=1, kv_heads=2, group=2, head_dim=16)
PLAIN = {"sinks": 2, "recents": 3, "tables": 12, "bits": 3, "rebuild_every": 4, "seed": 1}


def system_of(**changes) -> System:
    options = settings_of("magicpig")
    algorithm = algorithm_with(options, None)
    retrieve = replace(algorithm.retrieve, **PLAIN | changes)
    return build_system(options, SHAPE, algorithm=replace(algorithm, retrieve=retrieve))


def plain_codes(vector: list[float], directions: list[list[float]]) -> list[int]:
    """The bucket in each table, by one sign after the other."""
    codes = []
    for table in range(PLAIN["tables"]):
        code = 0
        for bit in range(PLAIN["bits"]):
            column = table * PLAIN["bits"] + bit
            inner = sum(x * row[column] for x, row in zip(vector, directions, strict=True))
            code += (inner > 0) << bit
        codes.append(code)
    return codes


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def plain_weight(query: list[float], key: list[float]) -> float:
    """How often two vectors collide in two tables or more."""
    norms = math.sqrt(dot(query, query) * dot(key, key))
    angle = math.acos(max(-1.0, min(1.0, dot(query, key) / norms)))
    same, tables = (1 - angle / math.pi) ** PLAIN["bits"], PLAIN["tables"]
    return 1 - (1 - same) ** tables - tables * same * (1 - same) ** (tables - 1)


def plain_step(
    query_GD: Tensor, keys_TD: Tensor, values_TD: Tensor, budget: int, hashed: tuple[int, int]
) -> tuple[Tensor, set[int]]:
    """The answer for the last token of one kv head, and what is read.

    hashed: tokens that made the center, and tokens that have codes.
    """
    queries, keys, values = (one.double().tolist() for one in (query_GD, keys_TD, values_TD))
    tokens, (of_center, covered) = range(len(keys)), hashed
    generator = torch.Generator().manual_seed(PLAIN["seed"])
    count = PLAIN["tables"] * PLAIN["bits"]
    directions = torch.randn(len(keys[0]), count, generator=generator).tolist()
    center = [sum(key[d] for key in keys[:of_center]) / max(1, of_center) for d in range(16)]
    centred = [[x - c for x, c in zip(key, center, strict=True)] for key in keys]
    codes = [plain_codes(key, directions) for key in centred]
    always = {*tokens[:2], *tokens[-3:], *tokens[covered:]}
    if len(keys) <= budget:
        always = set(tokens)
    shared = []
    for query in queries:
        mine = plain_codes(query, directions)
        shared.append([sum(a == b for a, b in zip(mine, code, strict=True)) for code in codes])
    drawn = [{t for t in tokens if t not in always and row[t] >= 2} for row in shared]
    worth = {
        t: sum(row[t] for row, taken in zip(shared, drawn, strict=True) if t in taken)
        for t in set().union(*drawn)
    }
    newest_first = sorted(always, key=lambda t: (t >= 2, -t))
    ranked = [*newest_first, *sorted(worth, key=lambda t: (-worth[t], t))]
    read = set(ranked[:budget])
    out = []
    for query, taken in zip(queries, drawn, strict=True):
        terms = {}
        for t in read & (always | taken):
            weight = plain_weight(query, centred[t]) + 1e-4 if t in taken else 1.0
            terms[t] = math.exp(dot(query, keys[t]) / 4) / weight
        total = sum(terms.values())
        out.append([sum(w * values[t][d] for t, w in terms.items()) / total for d in range(16)])
    return torch.tensor(out, dtype=torch.float64), read


@settings(max_examples=12)
@given(
    uid=st.sampled_from("abcdef"),
    context=st.integers(1, 70),
    question=st.sampled_from([0, 1, 9]),
    budget=st.sampled_from([9, 20, 40, 128]),
)
def test_an_answer_is_that_of_the_paper(uid, context, question, budget):
    system = system_of(budget_tokens=budget)
    system.context(uid, context)
    calls = [(context, question)] if question else []
    if question:
        system.question(uid, question)
    system.decode(uid)
    calls += [(context + question, 1)]
    stream, of_center, covered = stream_of(uid, SHAPE), 0, 0
    for (stored, new), read in zip(calls, system.reads, strict=True):
        if stored - 3 - covered >= 4:
            of_center, covered = of_center or stored - 3, stored - 3
        for row, seen in enumerate(read.seen_R.tolist()):
            head = row // new
            heads = slice(2 * head, 2 * head + 2)
            expected_GD, taken = plain_step(
                stream.query[0, seen - 1, heads],
                stream.key[0, :seen, head],
                stream.value[0, :seen, head],
                budget,
                (of_center, covered),
            )
            assert set(read.times_RT[row].nonzero().squeeze(1).tolist()) == taken
            found_GD = system.answers[uid][seen - 1][0, heads].double()
            torch.testing.assert_close(found_GD, expected_GD, atol=1e-4, rtol=1e-3)


@settings(max_examples=40)
@given(seed=st.integers(0, 999), bits=st.integers(1, 15))
def test_collisions_are_those_of_plain_signs(seed, bits):
    pig = MagicPig(budget_tokens=64, **PLAIN | {"bits": bits, "tables": 5})
    generator = torch.Generator().manual_seed(seed)
    keys_RTD, query_RQD = (torch.randn(2, n, 16, generator=generator) for n in (9, 3))
    center_RD = torch.randn(2, 16, generator=generator)
    summaries = pig.hashed(keys_RTD, center_RD)
    count_RQP = pig.score(summaries, queries_of(query_RQD, 9))
    directions = torch.randn(16, 5 * bits, generator=torch.Generator().manual_seed(1)).double()
    centred_RTD = (keys_RTD - center_RD.unsqueeze(1)).double()
    signs_RPLK, signs_RQLK = (
        (one.double() @ directions > 0).unflatten(2, (5, bits)) for one in (centred_RTD, query_RQD)
    )
    for r, q, p in torch.cartesian_prod(*map(torch.arange, (2, 3, 9))).tolist():
        expected = sum(bool((signs_RPLK[r, p, t] == signs_RQLK[r, q, t]).all()) for t in range(5))
        assert count_RQP[r, q, p] == expected
    torch.testing.assert_close(summaries["norm"].double().squeeze(2), centred_RTD.norm(dim=2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
@pytest.mark.parametrize("tables", [1, 31, 64, 75, 150, 330])
@pytest.mark.parametrize("num_tokens", [1, 64, 150])
def test_the_compiled_count_is_the_plain_one(dtype, tables, num_tokens):
    if compiled_collisions() is None:
        pytest.skip("no compiler")
    generator = torch.Generator().manual_seed(tables)
    pool_NCL = torch.randint(0, 3, (7, 64, tables), generator=generator).to(dtype)
    query_RQL = torch.randint(0, 3, (2, 6, tables), generator=generator).to(dtype)
    directory_RW = torch.tensor([[5, 0, 2], [6, -1, 3]])
    count_RQP = collisions(
        query_RQL, Segments(pool_NCL.mT.contiguous().mT, directory_RW), num_tokens
    )
    codes_RPL = pool_NCL[directory_RW].flatten(1, 2)[:, :num_tokens]
    expected_RQP = (codes_RPL.unsqueeze(1) == query_RQL.unsqueeze(2)).sum(3).float()
    expected_RQP[1, :, 64:128] = 0
    assert torch.equal(count_RQP, expected_RQP)


def test_the_weight_is_how_often_two_tables_or_more_agree():
    pig, generator = MagicPig(budget_tokens=64, **PLAIN), torch.Generator().manual_seed(0)
    query_D, key_D = torch.randn(2, 16, generator=generator)
    key_D = 0.5 * key_D + query_D
    cosine = torch.cosine_similarity(query_D, key_D, dim=0)
    trials = 4000
    draws = torch.randn(trials, PLAIN["tables"], PLAIN["bits"], 16, generator=generator)
    same = ((draws @ query_D > 0) == (draws @ key_D > 0)).all(dim=2)
    often = float((same.sum(dim=1) >= 2).float().mean())
    assert math.exp(-float(pig.sampling_bias(cosine))) == pytest.approx(often, abs=0.03)


@pytest.mark.parametrize("cosine", [-1.5, -1.0, 0.0, 1.0, 1.5])
def test_the_correction_is_a_number_at_every_angle(cosine):
    bias = MagicPig(budget_tokens=64, **PLAIN).sampling_bias(torch.tensor(cosine))
    assert -1e-3 <= float(bias) <= -math.log(1e-4) + 1e-3


def test_equal_keys_are_drawn_together_or_not_at_all():
    system = system_of(budget_tokens=30)
    stream = stream_of("same", SHAPE)

    def brought(uid: str, layer: int, new: int) -> list[Tensor]:
        rows = slice(system.stored[uid], system.stored[uid] + new)
        key = torch.ones_like(stream.key[0, rows])
        return [stream.query[0, rows], key, stream.value[0, rows]]

    system._brought = brought
    system.context("same", 60)
    system.decode("same")
    # Their centred keys are 0: no direction tells them apart, and each angle is a right one.
    assert system.answers["same"][60].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tables": 1}, "algo.retrieve.tables=1"),
        ({"bits": 0}, "algo.retrieve.bits=0"),
        ({"bits": 16}, "algo.retrieve.bits=16 exceeds the 15 bits"),
        ({"rebuild_every": 0}, "algo.retrieve.rebuild_every=0"),
        ({"budget_tokens": 8}, "take up to 9 tokens"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        MagicPig(**{"budget_tokens": 64} | PLAIN | changes)
