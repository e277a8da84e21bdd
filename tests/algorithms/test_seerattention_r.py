"""SeerAttention-R's gate, block by block, against the formula of the paper."""

import math
from dataclasses import replace

import pytest
import torch

from sparse_algos.gates import pooled
from sparse_algos.retrieve.seerattention_r import SeerAttentionR
from tests.algorithms.inputs import keys_of, queries_of, shape_of
from tests.algorithms.plain_reads import (
    SHAPE,
    STREAMS,
    assert_reads_follow,
    conversation,
    dot,
)

MODEL = shape_of(layers=2, kv_heads=2, group=2, head_dim=8)


def seer(**changes) -> SeerAttentionR:
    plain = {
        "budget_tokens": 24,
        "sinks": 2,
        "recents": 4,
        "group_reduce": "max",
        "block_tokens": 4,
        "weights": "{model}.safetensors",
    }
    return SeerAttentionR(**plain | changes)


def random_tensors(retriever: SeerAttentionR) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = retriever.tensor_shapes(MODEL)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def rotated(vector: list[float], position: float, frequency: list[float]) -> list[float]:
    """Half-split rotary embedding, a pair at a time."""
    half, turned = len(vector) // 2, [0.0] * len(vector)
    for pair in range(half):
        angle = position * frequency[pair]
        first, second = vector[pair], vector[pair + half]
        turned[pair] = first * math.cos(angle) - second * math.sin(angle)
        turned[pair + half] = second * math.cos(angle) + first * math.sin(angle)
    return turned


def times(vector: list[float], matrix: list[list[float]]) -> list[float]:
    return [dot(vector, [row[column] for row in matrix]) for column in range(len(matrix[0]))]


def plain_score(tensors, layer, head, queries, keys, position, start, frequency) -> float:
    """Gate query times gate key, over sqrt(d): everything in one place, in float64."""
    plain_keys = [rotated(key, -(start + n), frequency) for n, key in enumerate(keys)]
    columns = list(zip(*plain_keys, strict=True))
    pools = [max(c) for c in columns] + [min(c) for c in columns]
    pools += [sum(c) / len(c) for c in columns]
    gate_key = rotated(times(pools, tensors["key"][layer, head].tolist()), start, frequency)
    plain_queries = [x for query in queries for x in rotated(query, -position, frequency)]
    gate_query = times(plain_queries, tensors["query"][layer, head].tolist())
    return dot(rotated(gate_query, position, frequency), gate_key) / math.sqrt(len(gate_key))


@pytest.mark.parametrize("position", [23, 1000])
@pytest.mark.parametrize("first", [0, 3])
def test_a_score_is_the_formula_of_the_paper(first, position):
    tensors = random_tensors(seer())
    retriever = seer().with_tensors(tensors, MODEL)
    generator = torch.Generator().manual_seed(1)
    key_RPSD = torch.randn(4, 5, 4, 8, generator=generator)
    query_RQD = torch.randn(4, 2, 8, generator=generator)
    built = retriever.build(keys_of(key_RPSD, first=first, layer=1))
    scores_RQP = retriever.score(built, queries_of(query_RQD, 5, layer=1, position=position))
    frequency = MODEL.rotary.frequency_E.tolist()
    for row in range(4):
        for p in range(5):
            plain = plain_score(
                tensors,
                1,
                row % 2,
                query_RQD[row].tolist(),
                key_RPSD[row, p].tolist(),
                position,
                (first + p) * 4,
                frequency,
            )
            for q in range(2):
                assert float(scores_RQP[row, q, p]) == pytest.approx(plain, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_system_reads_what_the_paper_selects(stream, monkeypatch):
    system = conversation("seerattention_r of 8", stream, monkeypatch)
    tensors = system.attention.algorithm.retrieve._tensors
    frequency = SHAPE.info.rotary.frequency_E.tolist()

    def formula(tensors_of, layer, head, position, tokens):
        if len(tokens) < 8:
            return [0.0]
        queries = tensors_of.query[layer, position].unflatten(0, (SHAPE.kv_heads, -1))[head]
        keys = tensors_of.key[layer, tokens, head].tolist()
        score = plain_score(
            tensors, layer, head, queries.tolist(), keys, position, tokens[0], frequency
        )
        return [score]

    assert_reads_follow(system, stream, 1, formula)


def test_dead_slots_take_no_part_in_pools():
    key_RPSD = torch.tensor([[[[1.0], [5.0], [torch.nan]], [[torch.nan]] * 3]])
    live_RPS = torch.tensor([[[True, True, False], [False] * 3]])
    assert pooled(key_RPSD, live_RPS).tolist() == [[[5.0, 1.0, 3.0], [0.0, 0.0, 0.0]]]


def released(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same under the names of the paper's release."""
    found = {}
    for layer in range(MODEL.num_layers):
        prefix = f"model.layers.{layer}.self_attn.attn_gate.attngate_linear_"
        found[f"{prefix}q.weight"] = tensors["query"][layer].unflatten(1, (2, 8))
        found[f"{prefix}k.weight"] = tensors["key"][layer]
    return found


def test_gates_of_the_release_are_read_under_their_own_names():
    tensors = random_tensors(seer())
    ours, theirs = (seer().with_tensors(one, MODEL) for one in (tensors, released(tensors)))
    for name in tensors:
        assert torch.equal(ours._tensors[name], theirs._tensors[name])


def test_gates_that_do_not_fit_are_refused_in_one_line():
    tensors = released(random_tensors(seer()))
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.weights: layer 2 [^\n]*$"):
        seer().with_tensors(tensors, replace(MODEL, num_layers=3))
    norm = {"model.layers.0.self_attn.attn_gate.attngate_qnorm.weight": torch.ones(8)}
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.weights: [^\n]*normalise[^\n]*$"):
        seer().with_tensors(tensors | norm, MODEL)
    with pytest.raises(ValueError, match=r"^algo=seerattention_r turns keys back [^\n]*$"):
        seer().with_tensors(tensors, replace(MODEL, rotary=None))
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.block_tokens=0"):
        seer(block_tokens=0)
