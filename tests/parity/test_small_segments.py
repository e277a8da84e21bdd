"""How many summaries lie together changes nothing of what is selected and attended."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.attention.base import StepInputs
from memory_tiers.summary_store import SEGMENT
from tests.parity.steps import make_step, shapes
from tests.parity.test_decode_steps import KERNELS, SHAPE, kernel_of
from tests.parity.test_score_kernels import TOLERANCE, assert_agrees, case_of, score_exactly

SMALLER = (1, 2, 8, 16, 32)


def in_parts(step: StepInputs, segment: int) -> StepInputs:
    """The same summaries in segments of fewer, and those scattered."""
    parts = SEGMENT // segment
    pool_NCE = step.segments_NCE.reshape(-1, segment, step.segments_NCE.shape[2])
    place_N = torch.randperm(len(pool_NCE))
    scattered_NCE = torch.empty_like(pool_NCE)
    scattered_NCE[place_N] = pool_NCE
    part_RWP = step.directory_RW.clamp(min=0).unsqueeze(2) * parts + torch.arange(parts)
    directory_RW = place_N[part_RWP.flatten(1)].contiguous()
    return step._replace(segments_NCE=scattered_NCE, directory_RW=directory_RW)


@pytest.mark.parametrize("name", KERNELS)
@given(shape=shapes(), segment=st.sampled_from(SMALLER))
@settings(max_examples=150)
def test_how_many_summaries_lie_together_changes_no_bit(name, shape, segment):
    step, kernel = make_step(replace(shape, by_entry=False)), kernel_of(name)
    together = kernel.decode_step(step)
    kept = [one.clone() for one in together[1:5]]
    answer = None if together.attended is None else together.attended.out.clone()
    apart = kernel.decode_step(in_parts(step, segment))
    for one, other in zip(kept, apart[1:5], strict=True):
        assert torch.equal(one, other)
    assert (together.wanted, together.missing) == (apart.wanted, apart.missing)
    assert (answer is None) == (apart.attended is None)
    if answer is not None:
        assert torch.equal(answer, apart.attended.out)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("segment", SMALLER)
def test_scores_are_the_products_with_summaries_wherever_they_lie(name, segment):
    case = case_of(torch.float32, 64, 3, 200, num_rows=1)
    whole = case.directory_RW >= 0
    assert whole.all()
    parts = SEGMENT // segment
    apart = replace(
        case,
        segments_NCE=case.segments_NCE.reshape(-1, segment, 64),
        directory_RW=(case.directory_RW.unsqueeze(2) * parts + torch.arange(parts)).flatten(1),
    )
    expected = score_exactly(case)
    assert_agrees(apart.scored_by(kernel_of(name)), expected, TOLERANCE[name, torch.float32])


def test_a_small_segment_that_is_absent_is_refused():
    case = case_of(torch.float32, 64, 3, 200, num_rows=1)
    apart = replace(case, segments_NCE=case.segments_NCE.reshape(-1, 8, 64))
    directory_RW = torch.arange(25).unsqueeze(0)
    directory_RW[0, 11] = -1
    with pytest.raises(AssertionError, match="outside the pool"):
        replace(apart, directory_RW=directory_RW).scored_by(kernel_of("cpu-cpp"))


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_that_is_ready_for_a_layer_serves_the_next_from_another_pool(name):
    shape = replace(SHAPE, seed=3)
    step, kernel = make_step(shape), kernel_of(name)
    kernel.decode_step(step)
    other = step._replace(
        pool_FPSD=step.pool_FPSD.flip(0).contiguous(), segments_NCE=step.segments_NCE * -1
    )
    frames = len(step.pool_FPSD) - 1 - step.table.cells_C
    there = other._replace(
        table=step.table._replace(cells_C=torch.where(step.table.cells_C < 0, -1, frames).int())
    )
    apart = kernel_of(name).decode_step(there)
    moved = kernel.decode_step(other._replace(pool_FPSD=step.pool_FPSD.clone()))
    assert torch.equal(apart.attended.out, moved.attended.out)
    assert torch.equal(apart.pages_N, moved.pages_N)
