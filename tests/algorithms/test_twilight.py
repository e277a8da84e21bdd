"""Twilight against its formula, a token and a head at a time."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_algos.quantised import packed, unpacked
from sparse_algos.retrieve.oracle_topk import OracleTopK
from sparse_algos.retrieve.quest import Quest
from sparse_algos.retrieve.retroinfer import RetroInfer
from sparse_algos.retrieve.twilight import Twilight, nucleus
from sparse_algos.retriever import Retriever
from tests.algorithms.inputs import shape_of
from tests.laws.configs import composed, settings_of
from tests.laws.system import Shape, System, algorithm_with, build_system, stream_of

SHAPE = Shape(layers=1, kv_heads=2, group=2, head_dim=16)
COMMON = {"budget_tokens": 999, "sinks": 1, "recents": 2, "group_reduce": "max"}
BASES = {"quest": Quest(block_tokens=4, **COMMON), "oracle": OracleTopK(**COMMON)}


def system_of(base: Retriever, **changes) -> System:
    options = settings_of("twilight")
    algorithm = algorithm_with(options, None)
    retrieve = replace(algorithm.retrieve, base=base, sinks=2, recents=3, **changes)
    return build_system(options, SHAPE, algorithm=replace(algorithm, retrieve=retrieve))


def plain_bound(query: list[float], keys: list[list[float]]) -> float:
    """What a block of Quest, or a single key, is worth to a query."""
    return sum(
        max(q * min(channel), q * max(channel))
        for q, channel in zip(query, zip(*keys, strict=True), strict=True)
    )


def plain_rounded(key: list[float]) -> list[float]:
    low = torch.tensor(min(key)).half().item()
    width = torch.tensor((max(key) - low) / 15).half().item()
    return [low + width * min(15, max(0, round((x - low) / width))) for x in key]


def plain_read(query_GD: Tensor, keys_TD: Tensor, size: int, budget: int, share: float) -> set[int]:
    """Candidates of the base, then for each head the fewest tokens of enough weight, joined."""
    queries, keys = query_GD.tolist(), keys_TD.tolist()
    tokens = range(len(keys))
    blocks = [list(tokens[start : start + size]) for start in range(0, len(keys), size)]
    worth = [
        max(plain_bound(query, [keys[t] for t in block]) for query in queries) for block in blocks
    ]
    always = {0, 1, *tokens[-3:]}
    forced = [b for b, block in enumerate(blocks) if always & set(block)]
    others = sorted((b for b in range(len(blocks)) if b not in forced), key=lambda b: -worth[b])
    chosen = [*forced, *others[: max(0, budget // size - len(forced))]]
    candidates = sorted(t for b in chosen for t in blocks[b])
    kept = always & set(candidates)
    for query in queries:
        rounded = {t: plain_rounded(keys[t]) for t in candidates}
        terms = {
            t: math.exp(sum(q * k for q, k in zip(query, key, strict=True)) / math.sqrt(len(query)))
            for t, key in rounded.items()
        }
        held = 0.0
        for t in sorted(candidates, key=lambda t: -terms[t]):
            if held >= share * sum(terms.values()):
                break
            held += terms[t]
            kept.add(t)
    return kept


@settings(max_examples=15)
@given(
    base=st.sampled_from(["quest", "oracle"]),
    uid=st.sampled_from("abcdef"),
    context=st.integers(1, 90),
    question=st.integers(0, 4),
    budget=st.sampled_from([16, 40, 64]),
    share=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    compiled=st.booleans(),
)
def test_what_is_read_is_that_of_the_paper(base, uid, context, question, budget, share, compiled):
    system = system_of(BASES[base], budget_tokens=budget, top_p=share)
    if not compiled:
        index = system.attention.index
        index._kept = lambda layer, batch, query_NGD, candidates: index._pruner.prune(
            index._logits(layer, batch, query_NGD, candidates), candidates
        )
    system.context(uid, context)
    if question:
        system.question(uid, question)
    system.decode(uid)
    stream, size = stream_of(uid, SHAPE), BASES[base].partition_size
    for read in system.reads:
        for row, seen in enumerate(read.seen_R.tolist()):
            head = row // (len(read.seen_R) // 2)
            query_GD = stream.query[0, seen - 1, 2 * head : 2 * head + 2]
            expected = plain_read(query_GD, stream.key[0, :seen, head], size, budget, share)
            assert set(read.times_RT[row].nonzero().squeeze(1).tolist()) == expected


@settings(max_examples=60)
@given(weights=st.lists(st.integers(0, 16), min_size=1, max_size=30), share=st.integers(0, 255))
def test_a_nucleus_is_the_fewest_that_hold_the_share(weights, share):
    # Fractions of 256 are exact, and so are their sums.
    kept_C = nucleus(torch.tensor([[weights]]) / 256, share / 256)[0, 0].tolist()
    inside = [weight for weight, kept in zip(weights, kept_C, strict=True) if kept]
    outside = [weight for weight, kept in zip(weights, kept_C, strict=True) if not kept]
    ranked = sorted(weights, reverse=True)
    fewest = next((n for n in range(len(ranked)) if sum(ranked[:n]) >= share), len(ranked))
    assert len(inside) == fewest
    assert min(inside, default=99) >= max(outside, default=0)


@settings(max_examples=60)
@given(seed=st.integers(0, 999), scale=st.sampled_from([1e-6, 1.0, 1e3]))
def test_a_rounded_key_is_half_a_level_off_at_most(seed, scale):
    key_ND = torch.randn(5, 16, generator=torch.Generator().manual_seed(seed)) * scale
    off_ND = (unpacked(packed(key_ND)) - key_ND).abs()
    span_N = key_ND.amax(1) - key_ND.amin(1)
    # The range is kept in float16: 11 bits, and no step below 6e-8.
    rounding_N = 0.005 * span_N + 1e-3 * key_ND.abs().amax(1) + 1e-6
    assert (off_ND.amax(1) <= span_N / 30 + rounding_N).all()


@pytest.mark.parametrize("value", [0.0, 3.0, 1e9, torch.nan, torch.inf])
def test_keys_of_one_value_huge_ones_and_none_give_numbers(value):
    assert unpacked(packed(torch.full((2, 16), value))).isfinite().all()


def test_a_budget_that_the_base_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"algo\.retrieve\.budget_tokens=8 cannot hold"):
        Twilight(base=BASES["quest"], budget_tokens=8, sinks=2, recents=3, top_p=0.9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"top_p": 1.1}, "algo.retrieve.top_p=1.1"),
        ({"top_p": True}, "algo.retrieve.top_p=True"),
        ({"pool_heads": True}, "algo.retrieve.pool_heads=True"),
        ({"base": "quest"}, "algo.retrieve.base='quest' is no retriever"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    plain = {"base": BASES["quest"], "budget_tokens": 64, "sinks": 2, "recents": 3, "top_p": 0.9}
    with pytest.raises(ValueError, match=words):
        Twilight(**plain | changes)


def test_clusters_cannot_be_pruned():
    clusters = RetroInfer(
        cluster_tokens=4,
        rebuild_every=8,
        segment_tokens=64,
        iterations=1,
        estimated_share=0,
        **COMMON,
    )
    with pytest.raises(ValueError, match=r"algo\.retrieve\.base=RetroInfer"):
        Twilight(base=clusters, budget_tokens=64, sinks=2, recents=3, top_p=0.9)


def test_an_odd_number_of_channels_is_refused():
    twilight = Twilight(base=BASES["quest"], budget_tokens=64, sinks=2, recents=3, top_p=0.9)
    with pytest.raises(ValueError, match="15 of them; use algo=quest"):
        twilight.fitted(shape_of(head_dim=15))


def test_the_base_can_be_any_option():
    raw = composed("algo=twilight", "algo/retrieve@algo.retrieve.base=oracle_topk")
    target = raw["algo"]["retrieve"]["base"]["_target_"]
    assert target == "sparse_algos.retrieve.oracle_topk.OracleTopK"
