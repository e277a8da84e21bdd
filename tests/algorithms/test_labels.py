"""Double Sparsity and Loki read what their papers say, token by token."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_algos.labels import LabelRetriever
from sparse_algos.retrieve.double_sparsity import DoubleSparsity
from sparse_algos.retrieve.loki import Loki
from tests.algorithms.inputs import keys_of, queries_of, shape_of
from tests.algorithms.plain_reads import (
    SHAPE,
    STREAMS,
    assert_reads_follow,
    conversation,
    dot,
)

MODEL = shape_of(layers=2, kv_heads=2, group=2, head_dim=8)
PLAIN = {
    "budget_tokens": 12,
    "sinks": 2,
    "recents": 3,
    "group_reduce": "mass",
    "weights": "{model}.safetensors",
}


def double_sparsity(**changes) -> DoubleSparsity:
    return DoubleSparsity(**PLAIN | {"label_channels": 3} | changes)


def loki(**changes) -> Loki:
    return Loki(**PLAIN | {"label_channels": 3, "rotary": "post"} | changes)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tensors_for(retriever: LabelRetriever, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of channels, and random orthonormal bases."""
    found = {}
    for name, shape in retriever.tensor_shapes(MODEL).items():
        one = random(seed, *shape)
        found[name] = torch.linalg.qr(one).Q if one.dim() == 4 else one.abs()
    return found


def by_channels(weights: list[float], count: int, query: list[float], key: list[float]) -> float:
    best = sorted(range(len(weights)), key=lambda c: -weights[c])[:count]
    return sum(query[c] * key[c] for c in best) / math.sqrt(len(query))


def by_components(
    basis: list[list[float]], count: int, query: list[float], key: list[float]
) -> float:
    total = 0.0
    for part in range(count):
        direction = [row[part] for row in basis]
        total += dot(query, direction) * dot(key, direction)
    return total / math.sqrt(len(query))


FORMULAS = {
    double_sparsity: ("contribution", by_channels),
    loki: ("basis_post", by_components),
}


@pytest.mark.parametrize("make", FORMULAS)
@settings(max_examples=20)
@given(seed=st.integers(0, 999), count=st.integers(1, 8), layer=st.integers(0, 1))
def test_a_score_is_the_formula_of_the_paper(make, seed, count, layer):
    name, formula = FORMULAS[make]
    found = tensors_for(make(), seed)
    retriever = make(label_channels=count).with_tensors(found, MODEL)
    key_RPD, query_RQD = random(seed + 1, 4, 5, 8), random(seed + 2, 4, 2, 8)
    built = retriever.build(keys_of(key_RPD.unsqueeze(2), layer=layer))
    scores_RQP = retriever.score(built, queries_of(query_RQD, 5, layer=layer))
    for row in range(4):
        weights = found[name][layer, row % 2].tolist()
        for q in range(2):
            for p in range(5):
                plain = formula(
                    weights, count, query_RQD[row, q].tolist(), key_RPD[row, p].tolist()
                )
                assert float(scores_RQP[row, q, p]) == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("make", FORMULAS)
def test_labels_of_all_channels_score_exactly(make):
    retriever = make(label_channels=8)
    retriever = retriever.with_tensors(tensors_for(retriever), MODEL)
    key_RPD, query_RQD = random(1, 2, 9, 8), random(2, 2, 2, 8)
    built = retriever.build(keys_of(key_RPD.unsqueeze(2)))
    exact_RQP = query_RQD @ key_RPD.mT / math.sqrt(8)
    torch.testing.assert_close(retriever.score(built, queries_of(query_RQD, 9)), exact_RQP)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("algo", ["double_sparsity", "loki"])
def test_a_system_reads_what_the_paper_selects(algo, stream, monkeypatch):
    system = conversation(algo, stream, monkeypatch)
    retrieve = system.attention.algorithm.retrieve
    tensors = retrieve._tensors

    def formula(tensors_of, layer, head, position, tokens):
        (token,) = tokens
        key = tensors_of.key[layer, token, head].tolist()
        queries = tensors_of.query[layer, position].unflatten(0, (SHAPE.kv_heads, -1))[head]
        if "channels" in tensors:
            channels = tensors["channels"][layer, head].tolist()
            pairs = [
                ([q[c] for c in channels], [key[c] for c in channels]) for q in queries.tolist()
            ]
            return [dot(q, k) / math.sqrt(SHAPE.head_dim) for q, k in pairs]
        basis, count = tensors["basis_post"][layer, head].tolist(), retrieve.label_channels
        return [by_components(basis, count, q, key) for q in queries.tolist()]

    assert_reads_follow(system, stream, 1, formula)


def test_the_channels_are_those_that_weigh_most():
    weights_LKD = torch.tensor([1.0, 9, 3, 7, 2, 8, 0, 4]).repeat(2, 2, 1)
    fitted = double_sparsity().with_tensors({"contribution": weights_LKD}, MODEL)
    assert fitted.tensor("channels", 1).tolist() == [[1, 3, 5]] * 2


@pytest.mark.parametrize("make", FORMULAS)
def test_tensors_of_another_model_are_refused_in_one_line(make):
    retriever = make()
    found = tensors_for(retriever)
    (name,) = found
    with pytest.raises(ValueError, match=rf"^[^\n]*no tensor '{name}'[^\n]*python -m models.fit"):
        retriever.with_tensors({}, MODEL)
    with pytest.raises(
        ValueError, match=r"^[^\n]*needs \[3, 2, 8[^\n]*python -m models.fit[^\n]*$"
    ):
        retriever.with_tensors(found, replace(MODEL, num_layers=3))
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.label_channels=9: [^\n]* 8 channels"):
        make(label_channels=9).with_tensors(found, MODEL)
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.weights=[^\n]*cannot be read[^\n]*$"):
        retriever.fitted(MODEL)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"algo\.retrieve\.label_channels=0"):
        loki(label_channels=0)
    with pytest.raises(ValueError, match=r"algo\.retrieve\.rotary='both': use post or pre"):
        loki(rotary="both")
