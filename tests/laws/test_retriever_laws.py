"""Laws of the retrievers' indexes, over every option in conf/algo/retrieve."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.build import build
from harness.settings import Component
from sparse_algos.retriever import Keys, Retriever, Summaries
from sparse_algos.selection import Visible
from tests.algorithms.inputs import junk, keys_of, new_keys_of, queries_of, shape_of
from tests.laws.configs import RETRIEVERS, composed, fitted

retrievers = pytest.mark.parametrize("name", RETRIEVERS)
examples = settings(max_examples=40)
DIM, HEADS = 16, 2
MODEL = shape_of(layers=6, head_dim=DIM, kv_heads=HEADS)


def retriever_of(name: str) -> Retriever:
    """The option as it stands, in a composition with nothing else."""
    raw = composed("algo=dense", f"algo/retrieve={name}")["algo"]["retrieve"]
    return fitted(build(Component.model_validate(raw), "algo.retrieve"), MODEL)


def partitions_of(retriever: Retriever, keys_RTD: Tensor) -> Keys:
    """All partitions, complete or not; dead slots hold NaN."""
    size, (rows, length, dim) = retriever.partition_size, keys_RTD.shape
    count = -(-length // size)
    padded = torch.full((rows, count * size, dim), torch.nan, dtype=keys_RTD.dtype)
    padded[:, :length] = keys_RTD
    live_S = torch.arange(count * size) < length
    query_RTD = None
    if retriever.needs_queries:
        query_RTD = torch.randn(rows, count * size + (retriever.waits or 0), dim)
    return keys_of(
        padded.view(rows, count, size, dim),
        live_S.view(1, count, size).expand(rows, -1, -1),
        query_RTD=query_RTD,
    )


def appended(retriever: Retriever, keys_RTD: Tensor, start: int) -> Summaries:
    """The first `start` tokens built, the others appended one at a time over NaN."""
    size, length = retriever.partition_size, keys_RTD.shape[1]
    spec = retriever.summary_spec(DIM, torch.float32)
    shape = (len(keys_RTD), -(-length // size))
    kept = {name: junk((*shape, *one.shape), one.dtype) for name, one in spec.items()}
    if start:
        built = retriever.build(partitions_of(retriever, keys_RTD[:, :start]))
        for name, one in built.items():
            kept[name][:, : one.shape[1]] = one
    for token in range(start, length):
        old = {name: one[:, token // size] for name, one in kept.items()}
        grown = retriever.append(old, new_keys_of(keys_RTD[:, token], token % size))
        for name, one in grown.items():
            kept[name][:, token // size] = one
    return kept


def assert_appending_equals_rebuilding(retriever: Retriever, keys_RTD: Tensor, start: int) -> None:
    grown = appended(retriever, keys_RTD, start)
    built = retriever.build(partitions_of(retriever, keys_RTD))
    assert grown.keys() == built.keys() == retriever.summary_spec(DIM, torch.float32).keys()
    for name in built:
        assert torch.allclose(grown[name], built[name], rtol=1e-5, atol=1e-6), name


BUILT = [name for name in RETRIEVERS if retriever_of(name).kind != "cluster"]
APPENDING = [
    name
    for name in BUILT
    if retriever_of(name).waits is None and retriever_of(name).index_kind != "hashed"
]


@pytest.mark.parametrize("name", APPENDING)
@examples
@given(seed=st.integers(0, 999), length=st.integers(1, 70), share=st.floats(0, 1))
def test_appending_equals_rebuilding(name, seed, length, share):
    keys_RTD = torch.randn(HEADS, length, DIM, generator=torch.Generator().manual_seed(seed))
    assert_appending_equals_rebuilding(retriever_of(name), keys_RTD, int(share * length))


def whole_keys(retriever: Retriever, rows: int, partitions: int) -> Keys:
    tokens = partitions * retriever.partition_size
    return partitions_of(retriever, torch.randn(rows, tokens, DIM, dtype=torch.bfloat16))


@pytest.mark.parametrize("name", BUILT)
def test_summaries_have_the_shape_that_was_promised(name):
    retriever = retriever_of(name)
    built = retriever.build(whole_keys(retriever, HEADS, 3))
    spec = retriever.summary_spec(DIM, torch.bfloat16)
    assert built.keys() == spec.keys()
    for key, one in spec.items():
        assert built[key].shape == (HEADS, 3, *one.shape)
        assert built[key].dtype == one.dtype


@pytest.mark.parametrize("name", BUILT)
def test_scores_are_float32_of_every_query_and_partition(name):
    retriever = retriever_of(name)
    built = retriever.build(whole_keys(retriever, HEADS, 5))
    query_RQD = torch.randn(HEADS, 2, DIM, dtype=torch.bfloat16)
    scores_RQP = retriever.score(built, queries_of(query_RQD, 5))
    assert scores_RQP.shape == (HEADS, 2, 5)
    assert scores_RQP.dtype == torch.float32
    assert scores_RQP.isfinite().all()


@pytest.mark.parametrize("name", BUILT)
def test_what_is_not_summarised_yet_is_always_read(name):
    retriever = retriever_of(name)
    if retriever.waits is None:
        return
    size, tokens = retriever.partition_size, torch.arange(1, 300)
    partitions = -(-299 // size)
    forced_RP = Visible(tokens, 299).masks(partitions, size, 0, retriever.recents).forced_RP
    ends_P = (torch.arange(partitions) + 1) * size
    begun_RP = ends_P - size < tokens.unsqueeze(1)
    summarised_RP = ends_P + retriever.waits <= tokens.unsqueeze(1)
    assert (forced_RP | summarised_RP | ~begun_RP).all()
