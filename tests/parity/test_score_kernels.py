"""Every kernel scores what a plain float64 loop over the directory scores."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from backends.attention import cpu
from backends.attention.cpu import Cpu
from backends.attention.reference import Reference
from memory_tiers import native
from memory_tiers.native import UnavailableError
from memory_tiers.summary_store import SEGMENT
from sparse_algos.base import Algorithm
from sparse_algos.retrieve.oracle_topk import OracleTopK
from sparse_algos.retrieve.quest import Quest
from sparse_algos.retriever import Retriever
from sparse_algos.scores import dot_scores
from tests.algorithms.inputs import queries_of
from tests.laws.configs import settings_of
from tests.laws.system import Shape, build_system

KERNELS = ("torch", "cpu-cpp")
DTYPES = (torch.float32, torch.bfloat16)
SHAPES = [(num_queries, 130) for num_queries in (1, 2, 3, 4, 8, 40)] + [(3, 64), (4, 200), (5, 1)]
# Relative to the largest score; torch rounds the scores of bfloat16 to it.
TOLERANCE = {
    ("torch", torch.float32): 2e-6,
    ("torch", torch.bfloat16): 5e-3,
    ("cpu-cpp", torch.float32): 2e-6,
    ("cpu-cpp", torch.bfloat16): 2e-6,
}
SHARED = {"budget_tokens": 64, "sinks": 4, "recents": 8, "group_reduce": "max"}
QUEST = Quest(**SHARED, block_tokens=16)


class ScoresByItself(Quest):
    """Quest for an engine that knows of no scoring in place."""

    scored: ClassVar[str | None] = None

    def score(self, summaries, queries):
        return dot_scores(summaries["bounds"], self.scoring_query(queries))


@dataclass(frozen=True)
class Case:
    """Arguments of `score`; segments that no row has are NaN."""

    query_RQE: Tensor
    segments_NCE: Tensor
    directory_RW: Tensor
    num_partitions: int

    def scored_by(self, kernel: Reference) -> Tensor:
        return kernel.score(
            self.query_RQE, self.segments_NCE, self.directory_RW, self.num_partitions
        )


def kernel_of(name: str, head_dim: int = 64) -> Reference:
    """The kernel of that name; skips where this machine has no compiler."""
    if name == Reference.name:
        return Reference()
    try:
        return Cpu(head_dim)
    except UnavailableError as error:
        pytest.skip(str(error))


def case_of(dtype, entries, num_queries, num_partitions, num_rows=4) -> Case:
    """Rows of all segments, of one less each, and of none."""
    torch.manual_seed(entries + num_queries + num_partitions)
    width = -(-num_partitions // SEGMENT)
    directory_RW = 1 + torch.randperm(num_rows * width + 3)[: num_rows * width].view(num_rows, -1)
    for row in range(1, num_rows):
        directory_RW[row, max(0, width - row) :] = -1
    segments_NCE = torch.full((num_rows * width + 4, SEGMENT, entries), torch.nan)
    used_N = directory_RW[directory_RW >= 0]
    segments_NCE[used_N] = torch.randn(len(used_N), SEGMENT, entries)
    query_RQE = torch.randn(num_rows, num_queries, entries)
    return Case(query_RQE.to(dtype), segments_NCE.to(dtype), directory_RW, num_partitions)


def by_entry(case: Case) -> Case:
    """The same, with segments that lie entry by entry."""
    return replace(case, segments_NCE=case.segments_NCE.mT.contiguous().mT)


def score_exactly(case: Case) -> Tensor:
    """Scores in float64, one row and partition after the other; NaN where there is no segment."""
    num_rows, num_queries, _ = case.query_RQE.shape
    scores_RQP = torch.full((num_rows, num_queries, case.num_partitions), torch.nan).double()
    for row in range(num_rows):
        for partition in range(case.num_partitions):
            segment = int(case.directory_RW[row, partition // SEGMENT])
            if segment >= 0:
                summary_E = case.segments_NCE[segment, partition % SEGMENT].double()
                scores_RQP[row, :, partition] = case.query_RQE[row].double() @ summary_E
    return scores_RQP


def assert_agrees(actual: Tensor, exact: Tensor, tolerance: float) -> None:
    """Equal within rounding wherever a row has a segment."""
    there = ~exact.isnan()
    assert there.any()
    assert actual.shape == exact.shape
    assert actual.dtype == torch.float32
    error = (actual - exact)[there].abs().max() / exact[there].abs().max()
    assert error <= tolerance, f"a score is off by {error:.1e} of the largest"


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("entries", [16, 64, 128, 256, 24])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_score_is_the_product_with_the_summary_in_the_directory(name, dtype, entries, shape):
    case = case_of(dtype, entries, *shape)
    assert case.segments_NCE.isnan().any()
    assert (case.directory_RW < 0).any()
    # What the compiled kernel does not serve, it leaves to torch.
    served = "torch" if entries % 16 else name
    tolerance = TOLERANCE[served, dtype]
    assert_agrees(case.scored_by(kernel_of(name)), score_exactly(case), tolerance)
    assert_agrees(by_entry(case).scored_by(kernel_of(name)), score_exactly(case), tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_queries", [1, 3, 4, 7])
def test_entries_that_no_query_of_a_row_looks_at_are_not_read(dtype, num_queries):
    case = case_of(dtype, 64, num_queries, 130)
    for row in range(4):
        case.query_RQE[row, :, row::3] = 0
    exact_RQP = score_exactly(case)
    for row in range(4):
        case.segments_NCE[case.directory_RW[row].clamp(min=0), :, row::3] = torch.nan
    scores_RQP = by_entry(case).scored_by(kernel_of("cpu-cpp"))
    assert_agrees(scores_RQP, exact_RQP, TOLERANCE["cpu-cpp", dtype])


@pytest.mark.parametrize("entries", [32, 48, 96])
@pytest.mark.parametrize("head_dim", [16, 48])
def test_the_head_size_of_a_build_limits_no_summary(head_dim, entries):
    for dtype in DTYPES:
        case = case_of(dtype, entries, 7, 130)
        scores_RQP = case.scored_by(kernel_of("cpu-cpp", head_dim))
        assert_agrees(scores_RQP, score_exactly(case), TOLERANCE["cpu-cpp", dtype])


@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
def test_older_processors_score_the_same(without, monkeypatch):
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, without))
    monkeypatch.setattr(cpu, "load_library", native.load_library.__wrapped__)
    for dtype in DTYPES:
        case = case_of(dtype, 80, 7, 130)
        for each in (case, by_entry(case)):
            scores_RQP = each.scored_by(kernel_of("cpu-cpp"))
            assert_agrees(scores_RQP, score_exactly(case), TOLERANCE["cpu-cpp", dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit_of_a_score(dtype):
    case = case_of(dtype, 256, 4, 2000, num_rows=6)
    before, results = torch.get_num_threads(), []
    for num_threads in (1, 2, 5):
        torch.set_num_threads(num_threads)
        results.append(case.scored_by(kernel_of("cpu-cpp")))
    torch.set_num_threads(before)
    assert_agrees(results[0], score_exactly(case), TOLERANCE["cpu-cpp", dtype])
    assert all(torch.equal(one, results[0]) for one in results)


@pytest.mark.parametrize("name", KERNELS)
def test_a_scored_query_may_have_any_strides(name):
    case = case_of(torch.float32, 64, 4, 130)
    strided = Case(case.query_RQE.mT.contiguous().mT, *list(vars(case).values())[1:])
    assert not strided.query_RQE.is_contiguous()
    assert_agrees(strided.scored_by(kernel_of(name)), score_exactly(case), 2e-6)


@pytest.mark.parametrize("bad", [-2, 16])
def test_a_segment_outside_the_pool_is_never_read(bad):
    case = case_of(torch.float32, 64, 4, 130)
    case.directory_RW[1, 0] = bad
    assert len(case.segments_NCE) == 16
    with pytest.raises(AssertionError, match="outside the pool of 16"):
        case.scored_by(kernel_of("cpu-cpp"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fault", ["column", "segment", "nan"])
def test_the_comparison_of_scores_sees_a_fault(dtype, fault):
    case = case_of(dtype, 64, 3, 130)
    exact, tolerance = score_exactly(case), TOLERANCE["torch", dtype]
    scores_RQP = case.scored_by(Reference())
    assert_agrees(scores_RQP, exact, tolerance)
    if fault == "column":
        scores_RQP = scores_RQP.roll(1, -1)
    elif fault == "segment":
        case.directory_RW[0] = case.directory_RW[0].roll(1)
        scores_RQP = case.scored_by(Reference())
    else:
        scores_RQP[0, 1, 2] = torch.nan
    with pytest.raises(AssertionError):
        assert_agrees(scores_RQP, exact, tolerance)


def answers(retrieve: Retriever, kernel: Reference | None) -> Tensor:
    """What two sequences are told, a question and decode steps long: [N, L, H, D]."""
    algorithm = Algorithm(name="scored", evict=None, retrieve=retrieve)
    system = build_system(settings_of("quest"), Shape(), algorithm=algorithm)
    if kernel is not None:
        system.attention.kernel = kernel
    for uid, tokens in (("a", 150), ("b", 90)):
        system.context(uid, tokens)
        system.question(uid, 5)
    for _ in range(20):
        system.decode("a", "b")
    return torch.stack([one for uid in ("a", "b") for one in system.answers[uid].values()])


def test_scoring_in_place_changes_no_answer():
    copied = answers(ScoresByItself(**vars(QUEST)), None)
    assert torch.equal(answers(QUEST, None), copied)


@pytest.mark.parametrize("name", ["quest", "oracle"])
def test_the_compiled_kernel_scores_and_attends_as_torch_does(name):
    retrieve = QUEST if name == "quest" else OracleTopK(**SHARED)
    expected = answers(retrieve, None)
    assert torch.allclose(
        answers(retrieve, kernel_of("cpu-cpp", Shape().head_dim)), expected, atol=1e-5
    )


def test_a_retriever_without_scores_is_told_what_to_define():
    class Silent(Quest):
        scored: ClassVar[str | None] = None

    with pytest.raises(NotImplementedError, match=r"Silent neither names .* nor defines `score`"):
        Silent(**vars(QUEST)).score({}, queries_of(torch.zeros(1, 1, 16), 1))
