"""Laws of the retrievers' indexes, over every option in conf/algo/retrieve."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.build import build
from harness.settings import Component
from sparse_algos.retriever import Retriever, Summaries
from tests.laws.configs import RETRIEVERS, composed

retrievers = pytest.mark.parametrize("name", RETRIEVERS)
examples = settings(max_examples=40)
DIM = 8


def retriever_of(name: str) -> Retriever:
    """The option as it stands, in a composition with nothing else."""
    raw = composed("algo=dense", f"algo/retrieve={name}")["algo"]["retrieve"]
    return build(Component.model_validate(raw), "algo.retrieve")


def rebuilt(retriever: Retriever, keys_TD: Tensor) -> Summaries:
    """Summaries of all partitions at once; dead slots hold NaN."""
    size = retriever.partition_size
    count = -(-len(keys_TD) // size)
    padded = torch.full((count * size, DIM), torch.nan)
    padded[: len(keys_TD)] = keys_TD
    live_NS = (torch.arange(count * size) < len(keys_TD)).view(count, size)
    return retriever.build(padded.view(count, size, DIM), live_NS)


def appended(retriever: Retriever, keys_TD: Tensor, start: int) -> Summaries:
    """The first `start` tokens built, the others appended one at a time over NaN."""
    size = retriever.partition_size
    count = -(-len(keys_TD) // size)
    spec = retriever.summary_spec(DIM, torch.float32)
    kept = {name: torch.full((count, *one.shape), torch.nan) for name, one in spec.items()}
    if start:
        for name, built in rebuilt(retriever, keys_TD[:start]).items():
            kept[name][: len(built)] = built
    for token in range(start, len(keys_TD)):
        at = slice(token // size, token // size + 1)
        old = {name: one[at] for name, one in kept.items()}
        grown = retriever.append(old, torch.tensor([token % size]), keys_TD[token : token + 1])
        for name, one in grown.items():
            kept[name][at] = one
    return kept


def assert_appending_equals_rebuilding(retriever: Retriever, keys_TD: Tensor, start: int) -> None:
    grown, built = appended(retriever, keys_TD, start), rebuilt(retriever, keys_TD)
    assert grown.keys() == built.keys() == retriever.summary_spec(DIM, torch.float32).keys()
    for name in built:
        assert torch.equal(grown[name], built[name]), name


APPENDING = [name for name in RETRIEVERS if retriever_of(name).kind != "cluster"]


@pytest.mark.parametrize("name", APPENDING)
@examples
@given(seed=st.integers(0, 999), length=st.integers(1, 70), share=st.floats(0, 1))
def test_appending_equals_rebuilding(name, seed, length, share):
    keys_TD = torch.randn(length, DIM, generator=torch.Generator().manual_seed(seed))
    assert_appending_equals_rebuilding(retriever_of(name), keys_TD, int(share * length))


@retrievers
def test_summaries_have_the_shape_that_was_promised(name):
    retriever = retriever_of(name)
    keys_NSD = torch.randn(3, retriever.partition_size, DIM, dtype=torch.bfloat16)
    built = retriever.build(keys_NSD, torch.ones(keys_NSD.shape[:2], dtype=torch.bool))
    for key, spec in retriever.summary_spec(DIM, torch.bfloat16).items():
        assert built[key].shape == (3, *spec.shape)
        assert built[key].dtype == spec.dtype


@retrievers
def test_scores_are_float32_of_every_query_and_partition(name):
    retriever = retriever_of(name)
    keys_NSD = torch.randn(10, retriever.partition_size, DIM, dtype=torch.bfloat16)
    built = retriever.build(keys_NSD, torch.ones(keys_NSD.shape[:2], dtype=torch.bool))
    summaries = {key: one.unflatten(0, (2, 5)) for key, one in built.items()}
    scores_RQP = retriever.score(summaries, torch.randn(2, 3, DIM, dtype=torch.bfloat16))
    assert scores_RQP.shape == (2, 3, 5)
    assert scores_RQP.dtype == torch.float32
    assert scores_RQP.isfinite().all()
