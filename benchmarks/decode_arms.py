"""The kernels that are compared on one layer of a decode step, and the bare reads beside them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from backends.attention.base import FrameSelection, StepInputs
from backends.attention.cpu import Cpu
from backends.attention.reference import Reference
from benchmarks import vllm_kernel
from benchmarks.decode_case import (
    COLUMNS,
    HEAD_DIM,
    NUM_ROWS,
    RETRIEVE,
    SCALE,
    Case,
    pages_of,
    selection_of,
)
from benchmarks.yardsticks import read_all, read_run, read_units

SDPA, PLAIN = "torch sdpa, dense", "torch reference, select and attend"
DENSE, FUSED = "kvloom, all pages", "kvloom, fused step"
WITH_QUERY, SELECT = "kvloom, Quest's query and fused step", "kvloom, select alone"
RANDOM, RUN = "kvloom, attend random frames", "kvloom, attend contiguous frames"
SAME = "kvloom, attend vLLM's tokens"
VLLM_DENSE, VLLM_SAME = "vLLM, dense", "vLLM, attend the same tokens"
READ_RUN, READ_RANDOM = "read selected bytes, sequential", "read selected bytes, random pages"
READ_SUMMARIES, READ_ALL = "read summaries, sequential", "read all pages, sequential"
READ_STEP = "read summaries and random pages"
Call = Callable[[], object]


@dataclass(frozen=True)
class Arm:
    """A call for each variant, the bytes that one touches, and the arm that only reads these."""

    calls: Sequence[Call]
    num_bytes: int
    bound: str


def arms_of(case: Case) -> dict[str, Arm]:
    """Everything that is compared, the baseline first."""
    return {
        **_dense_arms(case),
        **_selecting_arms(case),
        **_attending_arms(case),
        **(_vllm_arms(case) if vllm_kernel.installed() else {}),
        **_reading_arms(case),
    }


def _dense_arms(case: Case) -> dict[str, Arm]:
    kernel, every = Cpu(HEAD_DIM), selection_of(case.frames_RP.flatten())
    queries = case.query_VRGD.unbind()
    # Of four dimensions: with three, torch takes another way, ten times slower.
    dense = (case.key_RTD.unsqueeze(0), case.value_RTD.unsqueeze(0))
    attend = torch.nn.functional.scaled_dot_product_attention
    sdpa = [partial(attend, each.unsqueeze(0), *dense, scale=SCALE) for each in queries]
    ours = [partial(kernel.decode, each, case.pool_FPSD, every, SCALE) for each in queries]
    return {
        SDPA: Arm(sdpa, case.all_bytes, READ_ALL),
        DENSE: Arm(ours, case.all_bytes, READ_ALL),
    }


def _selecting_arms(case: Case) -> dict[str, Arm]:
    """Each kernel serves one arm, as it serves one engine."""
    steps, whole = case.steps(), case.selected_bytes + case.summary_bytes
    plain, fused, with_query, select = Reference(), Cpu(HEAD_DIM), Cpu(HEAD_DIM), Cpu(HEAD_DIM)

    def with_its_query(step: StepInputs) -> object:
        query = RETRIEVE.scoring_query(step.query_RGD)
        return with_query.decode_step(step._replace(scoring_RQE=query))

    def made_anew(step: StepInputs) -> object:
        return fused.decode_step(StepInputs(*step))

    return {
        PLAIN: Arm([partial(plain.decode_step, each) for each in steps], whole, READ_STEP),
        FUSED: Arm([partial(made_anew, each) for each in steps], whole, READ_STEP),
        WITH_QUERY: Arm([partial(with_its_query, each) for each in steps], whole, READ_STEP),
        SELECT: Arm(
            [partial(select.select, each) for each in steps], case.summary_bytes, READ_SUMMARIES
        ),
    }


def _attending_arms(case: Case) -> dict[str, Arm]:
    kernel, count = Cpu(HEAD_DIM), NUM_ROWS * COLUMNS
    random = [case.frames_of(each) for each in case.random_VRC]
    runs = [(first + torch.arange(count)).int() for first in case.runs]
    same = [case.frames_of(pages_of(each)) for each in case.blocks_VRB]

    def calls(frames: list[Tensor]) -> list[Call]:
        return [
            partial(kernel.decode, query, case.pool_FPSD, selection_of(each), SCALE)
            for query, each in zip(case.query_VRGD.unbind(), frames, strict=True)
        ]

    return {
        RANDOM: Arm(calls(random), case.selected_bytes, READ_RANDOM),
        RUN: Arm(calls(runs), case.selected_bytes, READ_RUN),
        SAME: Arm(calls(same), case.selected_bytes, READ_RANDOM),
    }


def _vllm_arms(case: Case) -> dict[str, Arm]:
    kernel = vllm_kernel.VllmKernel(case)
    return {
        VLLM_DENSE: Arm(kernel.dense(), case.all_bytes, READ_ALL),
        VLLM_SAME: Arm(kernel.selected(), case.selected_bytes, READ_RANDOM),
    }


def _reading_arms(case: Case) -> dict[str, Arm]:
    """What the bytes of the others cost when nothing is computed."""
    pool, count = case.pool_FPSD, NUM_ROWS * COLUMNS
    random = [case.frames_of(each) for each in case.random_VRC]
    everything = case.frames_RP.numel()

    def read_step(frames_N: Tensor) -> None:
        read_all(case.segments_NCE)
        read_units(pool, frames_N)

    chosen, summaries = case.selected_bytes, case.summary_bytes
    calls: dict[str, tuple[Sequence[Call], int]] = {
        READ_RUN: ([partial(read_run, pool, at, count) for at in case.runs], chosen),
        READ_RANDOM: ([partial(read_units, pool, each) for each in random], chosen),
        READ_SUMMARIES: ([partial(read_all, case.segments_NCE)], summaries),
        READ_STEP: ([partial(read_step, each) for each in random], chosen + summaries),
        READ_ALL: ([partial(read_run, pool, 0, everything)], case.all_bytes),
    }
    return {name: Arm(*each, bound=name) for name, each in calls.items()}


def largest_error(case: Case) -> dict[str, float]:
    """How far the answers are from torch's, to know that all arms compute the same."""
    step, kernel, plain = case.steps()[0], Cpu(HEAD_DIM), Reference()
    dense = (each.unsqueeze(0).float() for each in (case.key_RTD, case.value_RTD))
    exact = torch.nn.functional.scaled_dot_product_attention(
        step.query_RGD.unsqueeze(0).float(), *dense, scale=SCALE
    )
    every = selection_of(case.frames_RP.flatten())
    ours = kernel.decode(step.query_RGD, case.pool_FPSD, every, SCALE)
    outcome = kernel.decode_step(step)
    assert outcome.attended is not None and outcome.missing == 0
    chosen = FrameSelection(outcome.indptr_R1, outcome.frames_N, outcome.live_N)
    sparse = plain.decode(step.query_RGD, case.pool_FPSD, chosen, SCALE)
    pairs = {DENSE: (ours.out, exact[0]), FUSED: (outcome.attended.out, sparse.out)}
    if vllm_kernel.installed():
        theirs = vllm_kernel.VllmKernel(case)
        pairs[VLLM_DENSE] = (theirs.dense()[0]().view(exact[0].shape), exact[0])
        same = selection_of(case.frames_of(pages_of(case.blocks_VRB[0])))
        mine = kernel.decode(step.query_RGD, case.pool_FPSD, same, SCALE)
        pairs[VLLM_SAME] = (theirs.selected()[0](), mine.out)
    errors = {}
    for name, (first, second) in pairs.items():
        distance = (first.float() - second.float()).abs().max() / second.float().abs().max()
        errors[name] = float(distance)
    return errors
