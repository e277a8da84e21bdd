"""SparQ against its formula, a token and a head at a time."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_algos.retrieve.sparq import SparQ
from tests.algorithms.inputs import shape_of
from tests.laws.configs import settings_of
from tests.laws.laws import exact_answers
from tests.laws.system import Shape, System, algorithm_with, build_system, stream_of

SHAPE = Shape(layers=1, kv_heads=2, group=2, head_dim=16)


def system_of(**changes) -> System:
    options = settings_of("sparq")
    algorithm = algorithm_with(options, None)
    retrieve = replace(algorithm.retrieve, sinks=2, recents=3, **changes)
    return build_system(options, SHAPE, algorithm=replace(algorithm, retrieve=retrieve))


def plain_step(
    query_GD: Tensor, keys_TD: Tensor, values_TD: Tensor, budget: int, channels: int
) -> tuple[Tensor, set[int]]:
    """The paper's algorithm for the last token of one kv head, in float64, and what it reads."""
    queries, keys, values = (one.double().tolist() for one in (query_GD, keys_TD, values_TD))
    dim, tokens = len(queries[0]), range(len(keys))
    sizes = [sum(abs(query[d]) for query in queries) for d in range(dim)]
    chosen = sorted(range(dim), key=lambda d: -sizes[d])[:channels]
    weights = []
    for query in queries:
        share = sum(abs(query[d]) for d in chosen) / sum(abs(x) for x in query)
        scale = math.sqrt(dim * share)
        terms = [math.exp(sum(query[d] * key[d] for d in chosen) / scale) for key in keys]
        weights.append([term / sum(terms) for term in terms])
    forced = {0, 1, *tokens[-3:]}
    mass = [sum(weight[t] for weight in weights) for t in tokens]
    others = sorted((t for t in tokens if t not in forced), key=lambda t: -mass[t])
    read = forced | set(others[: max(0, budget - len(forced))])
    mean = [sum(value[d] for value in values) / len(values) for d in range(dim)]
    out = []
    for query, weight in zip(queries, weights, strict=True):
        alpha = sum(weight[t] for t in read)
        exact = {
            t: math.exp(sum(q * k for q, k in zip(query, keys[t], strict=True)) / math.sqrt(dim))
            for t in read
        }
        total = sum(exact.values())
        out.append(
            [
                alpha * sum(exact[t] * values[t][d] for t in read) / total + (1 - alpha) * mean[d]
                for d in range(dim)
            ]
        )
    return torch.tensor(out, dtype=torch.float64), read


@settings(max_examples=12)
@given(
    uid=st.sampled_from("abcdef"),
    context=st.integers(1, 60),
    question=st.integers(0, 4),
    budget=st.sampled_from([8, 20, 64]),
    channels=st.sampled_from([1, 5, 16]),
)
def test_an_answer_is_that_of_the_paper(uid, context, question, budget, channels):
    system = system_of(budget_tokens=budget, channels=channels)
    system.context(uid, context)
    if question:
        system.question(uid, question)
    system.decode(uid)
    stream = stream_of(uid, SHAPE)
    read_of = {int(n): read for read in system.reads for n in read.seen_R}
    for position in range(context, context + question + 1):
        seen = position + 1
        for head in range(2):
            heads = slice(2 * head, 2 * head + 2)
            expected_GD, read = plain_step(
                stream.query[0, position, heads],
                stream.key[0, :seen, head],
                stream.value[0, :seen, head],
                budget,
                channels,
            )
            found_GD = system.answers[uid][position][0, heads].double()
            torch.testing.assert_close(found_GD, expected_GD, atol=2e-5, rtol=1e-4)
            rows = read_of[seen].seen_R.view(2, -1)[head] == seen
            times_T = read_of[seen].times_RT.view(2, len(rows), -1)[head][rows][0]
            assert set(times_T.nonzero().squeeze(1).tolist()) == read


@pytest.mark.parametrize("factor", [0.0, 1e4])
def test_zero_and_huge_queries_give_numbers(factor):
    system = system_of(budget_tokens=20, channels=4)
    stream = stream_of("x", SHAPE)

    def brought(uid: str, layer: int, new: int) -> list[Tensor]:
        rows = slice(system.stored[uid], system.stored[uid] + new)
        return [stream.query[0, rows] * factor, stream.key[0, rows], stream.value[0, rows]]

    system._brought = brought
    system.context("x", 50)
    system.decode("x")
    out_HD = system.answers["x"][50][0]
    assert out_HD.isfinite().all()
    if factor == 0:
        mean_KD = stream.value[0, :51].mean(0)
        taken = system.reads[-1].times_RT[:, :51].bool()
        of_read = torch.stack([stream.value[0, :51, k][taken[k]].mean(0) for k in range(2)])
        share = 20 / 51
        expected = share * of_read + (1 - share) * mean_KD
        torch.testing.assert_close(out_HD, expected.repeat_interleave(2, 0), atol=1e-5, rtol=1e-4)


def test_without_reallocation_an_answer_is_attention_over_what_was_read():
    system = system_of(budget_tokens=20, channels=4, reallocate=False)
    system.context("x", 50)
    system.decode("x")
    taken_KTT = torch.zeros(2, 51, 51, dtype=torch.bool)
    taken_KTT[:, 50] = system.reads[-1].times_RT[:, :51].bool()
    exact_HD = exact_answers(system, "x", 0, taken_KTT)[50]
    torch.testing.assert_close(system.answers["x"][50][0].double(), exact_HD, atol=1e-5, rtol=1e-4)


def test_more_channels_than_a_key_has_are_refused():
    retrieve = SparQ(
        budget_tokens=64, sinks=2, recents=3, group_reduce="mass", channels=17, reallocate=True
    )
    with pytest.raises(ValueError, match=r"algo\.retrieve\.channels=17.*lower it"):
        retrieve.fitted(shape_of(head_dim=16))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": 0}, "algo.retrieve.channels=0"),
        ({"reallocate": "yes"}, "algo.retrieve.reallocate='yes'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        system_of(**{"budget_tokens": 20, "channels": 4} | changes)
