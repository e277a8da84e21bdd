"""The compiled passes over clusters choose and estimate what the plain ones do."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from backends.zones import choose, compiled_zones, estimate
from memory_tiers.summary_store import SEGMENT, Segments
from sparse_algos.index_data import Read
from sparse_algos.scores import reduce_group
from sparse_algos.selection import Clusters, Selection, Visible
from tests.algorithms.test_retroinfer import retroinfer

HEAD_DIM = 32
examples = settings(max_examples=100, deadline=None)
# Below this, the rounding of a softmax may change places.
LEAST_GAP = 1e-5


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    if compiled_zones(HEAD_DIM) is None:
        pytest.skip("no compiler")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def visible_of(seed: int, rows: int, partitions: int, most_tokens: int) -> Visible:
    """Clusters of any sizes, also none; some rows have none at all, and tokens that wait."""
    generator = torch.Generator().manual_seed(seed)
    sizes_RP = torch.randint(0, most_tokens + 1, (rows, partitions), generator=generator)
    sizes_RP[torch.rand(rows, generator=generator) < 0.2] = 0
    covered_R = 2 + sizes_RP.sum(1)
    num_tokens_R = covered_R + torch.randint(1, 30, (rows,), generator=generator)
    return Visible(num_tokens_R, int(num_tokens_R.max()), clusters=Clusters(sizes_RP, covered_R))


def gap_of(scores_RGP: Tensor, visible: Visible, how: str) -> float:
    """The least relative distance between the scores of two clusters of a row."""
    assert visible.clusters is not None
    absent_RP = visible.clusters.sizes_RP == 0
    masked_RGP = scores_RGP.double().masked_fill(absent_RP.unsqueeze(1), -torch.inf)
    score_RP = reduce_group(masked_RGP, how)
    gaps = []
    for row_P in score_RP:
        ranked = row_P[row_P > -torch.inf].sort().values
        if len(ranked) > 1:
            gaps.append(float((ranked.diff() / ranked[1:].abs()).min()))
    return min(gaps, default=1.0)


def told(selection: Selection) -> list[tuple[list[int], set[int]]]:
    """By row, the clusters that are read, ascending, and those that are estimated."""
    assert selection.valid_RC is not None
    rows = range(len(selection.valid_RC))
    read = [selection.partitions_RC[row][selection.valid_RC[row]].tolist() for row in rows]
    if selection.estimated_RC is None:
        return [(one, set()) for one in read]
    return [(read[row], set(selection.estimated_RC[row].tolist()) - {-1}) for row in rows]


@examples
@given(
    seed=st.integers(0, 9999),
    rows=st.integers(1, 4),
    group=st.sampled_from([1, 2, 4, 7]),
    partitions=st.sampled_from([0, 1, 3, 15, 64, 130]),
    most_tokens=st.sampled_from([1, 5, 60]),
    budget=st.sampled_from([14, 20, 60, 500, 0.1, 0.6]),
    share=st.sampled_from([0.0, 0.232, 1.0]),
    how=st.sampled_from(["max", "mean", "mass", "peak"]),
)
def test_one_pass_chooses_the_zones_that_select_does(
    seed, rows, group, partitions, most_tokens, budget, share, how
):
    retriever = retroinfer(budget_tokens=budget, estimated_share=share, group_reduce=how)
    scores_RGP = 2 * normal(seed, rows, group, partitions)
    visible = visible_of(seed + 1, rows, partitions, most_tokens)
    assume(gap_of(scores_RGP, visible, how) > LEAST_GAP)
    found = choose(retriever, scores_RGP, visible, HEAD_DIM)
    expected = retriever.select(scores_RGP, visible)
    assert found is not None and told(found) == told(expected)
    assert all(torch.equal(a, b) for a, b in zip(found.steady, expected.steady, strict=True))
    assert found.valid_RC.shape == expected.valid_RC.shape
    assert bool((found.partitions_RC[~found.valid_RC] == partitions).all())


@pytest.mark.parametrize("budget", [20, 60])
def test_equal_scores_prefer_the_lower_cluster(budget):
    visible = Visible(
        torch.tensor([106]),
        106,
        clusters=Clusters(torch.ones(1, 100, dtype=torch.int64), torch.tensor([102])),
    )
    found = choose(retroinfer(budget_tokens=budget), torch.zeros(1, 2, 100), visible, HEAD_DIM)
    assert found is not None
    assert told(found) == [(list(range(budget - 6)), set(range(budget - 6, budget + 19)))]


@examples
@given(
    seed=st.integers(0, 9999),
    rows=st.integers(1, 3),
    new=st.sampled_from([1, 3]),
    group=st.sampled_from([1, 4, 7]),
    columns=st.sampled_from([0, 1, 16, 50]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    scale=st.sampled_from([HEAD_DIM**-0.5, 0.9]),
)
def test_one_pass_estimates_what_torch_does(seed, rows, new, group, columns, dtype, scale):
    partitions, width = 150, 3
    directory_RW = torch.randperm(20)[: rows * width].view(rows, width)
    value_NCD = normal(seed, 20, SEGMENT, HEAD_DIM).to(dtype)
    size_NC1 = torch.randint(1, 40, (20, SEGMENT, 1)).float()
    scores_NGP = 3 * normal(seed + 1, rows * new, group, partitions)
    estimated_NC = torch.rand(rows * new, partitions).argsort(1)[:, :columns].sort(1).values
    estimated_NC[torch.rand(rows * new, columns) < 0.3] = -1
    at_NC = estimated_NC.clamp(min=0)
    segment_NC = directory_RW.repeat_interleave(new, 0).gather(1, at_NC // SEGMENT)
    steady_width = torch.zeros(rows * new, 0, dtype=torch.int64)
    read = Read(
        normal(seed + 2, rows * new, group, HEAD_DIM),
        scores_NGP,
        torch.zeros(rows * new, group),
        Selection(steady_width, steady_width.bool(), estimated_RC=estimated_NC),
        {
            "value": value_NCD[segment_NC, at_NC % SEGMENT],
            "size": size_NC1[segment_NC, at_NC % SEGMENT],
        },
        None,
        scale,
    )
    retriever = retroinfer()
    expected = retriever.estimate(read)
    factor = retriever.logits_by(scale, HEAD_DIM)
    segments = Segments(value_NCD, directory_RW)
    found = estimate(scores_NGP, estimated_NC, segments, size_NC1, factor)
    assert found is not None
    torch.testing.assert_close(found.lse_RG, expected.lse_RG, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.out_RGD, expected.out_RGD, atol=1e-5, rtol=1e-5)


def test_a_cluster_outside_the_pool_is_refused():
    segments = Segments(torch.zeros(2, SEGMENT, HEAD_DIM), torch.tensor([[0, 2]]))
    size_NC1, scores_NGP = torch.ones(2, SEGMENT, 1), torch.zeros(1, 2, 2 * SEGMENT)
    assert estimate(scores_NGP, torch.tensor([[SEGMENT - 1]]), segments, size_NC1, 1.0) is not None
    with pytest.raises(AssertionError, match="outside the pool of 2"):
        estimate(scores_NGP, torch.tensor([[SEGMENT]]), segments, size_NC1, 1.0)
