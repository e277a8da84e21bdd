"""A decode step in one call reads and answers what plain loops over tokens say."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from backends.attention import cpu
from backends.attention.base import FrameSelection, SelectRule, StepInputs, StepOutcome
from backends.attention.cpu import Cpu
from backends.attention.reference import Reference
from memory_tiers import native
from memory_tiers.base import Layout, Rows, TableView
from memory_tiers.native import UnavailableError
from memory_tiers.partition.identity import Identity
from memory_tiers.partition.token import Token
from sparse_algos.retrieve.oracle_topk import OracleTopK
from sparse_algos.retrieve.quest import Quest
from sparse_algos.selection import Visible
from tests.parity.exact import assert_agrees
from tests.parity.steps import (
    DTYPES,
    REDUCES,
    Shape,
    attended_exactly,
    chosen_exactly,
    frame_in,
    make_step,
    partitions_in,
    ranks_exactly,
    shapes,
    shares_exactly,
    slots_of,
)

KERNELS = ("torch", "cpu-cpp")
RULE = SelectRule(columns=9, partition_size=16, sinks=4, recents=20, group_reduce="max")
SHAPE = Shape(
    rule=RULE,
    page_tokens=16,
    tokens=[700, 0, 1, 2300, 130],
    group_size=4,
    shares=None,
    two_levels=False,
    dtype=torch.float32,
    head_dim=64,
    seed=0,
)


def kernel_of(name: str, head_dim: int = 64) -> Reference:
    """The kernel of that name; skips where this machine has no compiler."""
    if name == Reference.name:
        return Reference()
    try:
        return Cpu(head_dim)
    except UnavailableError as error:
        pytest.skip(str(error))


def assert_reads(step: StepInputs, outcome: StepOutcome) -> None:
    """The selection is what the loops select, in pages, live bits, frames and counts."""
    wanted = at = missing = 0
    for row in range(len(step.num_tokens_R)):
        chosen = partitions_in(outcome, row)
        if step.rule.group_reduce == "mass":
            assert_as_good(step, row, chosen)
        else:
            assert chosen == chosen_exactly(step, row)
        if step.rule.shares:
            shares = outcome.share_RG[row].tolist()
            assert shares == pytest.approx(shares_exactly(step, row, chosen), rel=1e-4, abs=1e-6)
        slots = slots_of(step, row, chosen)
        assert outcome.indptr_R1[row] == at
        here = slice(at, at + len(slots))
        assert outcome.pages_N[here].tolist() == sorted(slots)
        for page, live, frame in zip(
            *(each[here].tolist() for each in (outcome.pages_N, outcome.live_N, outcome.frames_N)),
            strict=True,
        ):
            assert {slot for slot in range(64) if live >> slot & 1} == slots[page]
            assert frame == frame_in(step.table, page)
            missing += frame < 0
        wanted += sum(map(len, slots.values()))
        at += len(slots)
    assert outcome.indptr_R1[-1] == at == len(outcome.pages_N)
    assert outcome.indptr_R1.dtype == outcome.pages_N.dtype == outcome.live_N.dtype == torch.int64
    assert outcome.frames_N.dtype == torch.int32
    assert (outcome.wanted, outcome.missing) == (wanted, missing)


def assert_as_good(step: StepInputs, row: int, chosen: list[int]) -> None:
    """Exponentials are rounded: what is left out may exceed what is taken by that much."""
    ranks, exact = ranks_exactly(step, row), chosen_exactly(step, row)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == len(exact)
    kinds = sorted(ranks[partition][0] for partition in chosen)
    assert kinds == sorted(ranks[partition][0] for partition in exact)
    left_out = set(range(len(ranks))) - set(chosen)
    worst = min((ranks[p][1] for p in chosen if ranks[p][0] == 1), default=torch.inf)
    best = max((ranks[p][1] for p in left_out if ranks[p][0] == 1), default=-torch.inf)
    assert best <= worst * (1 + 1e-5) + 1e-7


def assert_answers(step: StepInputs, outcome: StepOutcome) -> None:
    """The answer is attention over the selection, or none where a page is missing."""
    if outcome.missing:
        assert outcome.attended is None
        return
    chosen = [partitions_in(outcome, row) for row in range(len(step.num_tokens_R))]
    exact = attended_exactly(step, chosen)
    if exact.lse.isneginf().all():
        assert not outcome.attended.out.any()
        assert outcome.attended.lse.isneginf().all()
    else:
        assert_agrees(outcome.attended, exact, step.query_RGD.dtype)


@pytest.mark.parametrize("name", KERNELS)
@settings(max_examples=60)
@given(shape=shapes())
def test_a_step_reads_and_answers_what_plain_loops_do(name, shape):
    step = make_step(shape)
    outcome = kernel_of(name).decode_step(step)
    assert_reads(step, outcome)
    assert_answers(step, outcome)


@pytest.mark.parametrize("name", KERNELS)
def test_selection_alone_selects_the_same_and_attends_nothing(name):
    step = make_step(SHAPE)
    alone, whole = kernel_of(name).select(step), kernel_of(name).decode_step(step)
    assert alone.attended is None
    assert whole.attended is not None
    assert_reads(step, alone)
    assert torch.equal(alone.pages_N, whole.pages_N)
    assert torch.equal(alone.frames_N, whole.frames_N)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("two_levels", [False, True])
def test_what_is_missing_is_told_and_can_be_attended_once_fetched(name, two_levels):
    shape = replace(SHAPE, two_levels=two_levels)
    whole = make_step(shape)
    step = make_step(replace(shape, missing=100))
    kernel = kernel_of(name)
    outcome = kernel.decode_step(step)
    assert outcome.attended is None
    assert 0 < outcome.missing == (outcome.frames_N < 0).sum() < len(outcome.frames_N)
    frames_N = torch.tensor([frame_in(whole.table, int(page)) for page in outcome.pages_N])
    fetched = FrameSelection(outcome.indptr_R1, frames_N, outcome.live_N)
    answer = kernel.decode(whole.query_RGD, whole.pool_FPSD, fetched, whole.scale)
    expected = kernel_of(name).decode_step(whole).attended
    assert torch.equal(answer.out, expected.out)
    assert torch.equal(answer.lse, expected.lse)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("how", REDUCES)
def test_what_is_no_number_is_never_chosen_over_a_number(name, how):
    shape = replace(SHAPE, unknown=True, rule=replace(RULE, group_reduce=how))
    step = make_step(shape)
    outcome = kernel_of(name).select(step)
    ranks, chosen = ranks_exactly(step, 3), partitions_in(outcome, 3)
    assert sum(kind == 0 for kind, _ in ranks) > RULE.columns
    assert len(chosen) == RULE.columns
    assert all(ranks[partition][0] > 0 for partition in chosen)


@pytest.mark.parametrize("name", KERNELS)
def test_who_may_read_all_reads_all_whatever_the_scores(name):
    step = make_step(replace(SHAPE, unknown=True, rule=replace(RULE, columns=144)))
    step.scoring_RQE.fill_(torch.nan)
    outcome = kernel_of(name).decode_step(step)
    assert outcome.wanted == sum(SHAPE.tokens)
    assert_answers(step, outcome)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", REDUCES)
def test_the_number_of_threads_changes_no_bit_of_a_step(dtype, how):
    rule = replace(RULE, columns=300, partition_size=5, group_reduce=how)
    shape = replace(SHAPE, tokens=[40_000, 9000, 0], rule=rule, dtype=dtype)
    before, outcomes = torch.get_num_threads(), []
    for num_threads in (1, 2, 5):
        torch.set_num_threads(num_threads)
        outcomes.append(kernel_of("cpu-cpp").decode_step(make_step(shape)))
    torch.set_num_threads(before)
    assert_answers(make_step(shape), outcomes[0])
    for outcome in outcomes[1:]:
        assert torch.equal(outcome.pages_N, outcomes[0].pages_N)
        assert torch.equal(outcome.attended.out, outcomes[0].attended.out)
        assert torch.equal(outcome.attended.lse, outcomes[0].attended.lse)


@pytest.mark.parametrize("without", ["-mno-avx512bf16", "-mno-avx512f", "-mno-avx"])
def test_older_processors_make_the_same_step(without, monkeypatch):
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, without))
    monkeypatch.setattr(cpu, "load_library", native.load_library.__wrapped__)
    kernel = kernel_of("cpu-cpp")
    for dtype in DTYPES:
        for how in REDUCES:
            rule = replace(RULE, group_reduce=how)
            step = make_step(replace(SHAPE, dtype=dtype, rule=rule, group_size=7))
            outcome = kernel.decode_step(step)
            assert_reads(step, outcome)
            assert_answers(step, outcome)


def test_a_kernel_answers_every_step_anew():
    kernel = kernel_of("cpu-cpp")
    first = make_step(SHAPE)
    others = [
        first._replace(num_tokens_R=first.num_tokens_R - (first.num_tokens_R > 9) * 9),
        first._replace(query_RGD=-first.query_RGD, scoring_RQE=-first.scoring_RQE),
        first._replace(first_page_R=first.first_page_R.flip(0), trace=False),
        first._replace(rule=replace(RULE, columns=5)),
        first._replace(columns_R=torch.tensor([1, 2, 3, 4, 5])),
        make_step(replace(SHAPE, tokens=[40, 900], two_levels=True, seed=3)),
        make_step(replace(SHAPE, dtype=torch.bfloat16, group_size=2)),
        first._replace(scale=0.5),
        first._replace(table=TableView(torch.full_like(first.table.cells_C, -1))),
    ]
    for other in others:
        for step in (first, other):
            outcome, fresh = kernel.decode_step(step), kernel_of("cpu-cpp").decode_step(step)
            assert outcome.missing == fresh.missing
            for mine, theirs in zip(outcome[1:5], fresh[1:5], strict=True):
                assert torch.equal(mine, theirs)
            if not fresh.missing:
                assert torch.equal(outcome.attended.out, fresh.attended.out)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("how", REDUCES)
def test_a_step_selects_as_retriever_and_mapper_do(name, how):
    shared = {"budget_tokens": 160, "sinks": 4, "recents": 20, "group_reduce": how}
    for retrieve, mapper in (
        (Quest(**shared, block_tokens=16), Identity()),
        (OracleTopK(**shared), Token()),
    ):
        size = retrieve.partition_size
        rule = SelectRule(160 // size, size, 4, 20, how)
        step = make_step(replace(SHAPE, rule=rule, tokens=[700, 2300, 130, 90]))
        step.segments_NCE.copy_(torch.randn(step.segments_NCE.shape))
        outcome = kernel_of(name).select(step)
        scores_RQP = Reference().score(
            step.scoring_RQE, step.segments_NCE, step.directory_RW, -(-2300 // size)
        )
        visible = Visible(step.num_tokens_R, 2300, shortest=90)
        selection = retrieve.select(scores_RQP, visible)
        rows = Rows(step.first_page_R, step.num_tokens_R, 2300)
        layout = Layout(page_tokens=SHAPE.page_tokens, partition_size=size)
        pages = mapper.to_pages(selection, rows, layout)
        assert outcome.wanted == pages.wanted
        for name_of in ("indptr_R1", "pages_N", "live_N"):
            assert torch.equal(getattr(outcome, name_of), getattr(pages, name_of))


@pytest.mark.parametrize("fault", ["segment", "frame", "page", "width", "group"])
def test_nothing_outside_segments_table_and_pool_is_read(fault):
    step = make_step(replace(SHAPE, two_levels=fault == "group"))
    if fault == "segment":
        step.directory_RW[0, 0] = len(step.segments_NCE)
    elif fault == "frame":
        step.table.cells_C.fill_(len(step.pool_FPSD))
    elif fault == "page":
        step.first_page_R[4] = len(step.table.cells_C)
    elif fault == "width":
        step = step._replace(directory_RW=step.directory_RW[:, :1].contiguous())
    else:
        step.first_page_R[4] = -100
    with pytest.raises(AssertionError, match="outside its segments, its table or its pool"):
        kernel_of("cpu-cpp").decode_step(step)


@pytest.mark.parametrize(
    "what", ["partition", "page", "live", "frame", "wanted", "answer", "share"]
)
def test_the_comparison_of_steps_sees_a_fault(what):
    step = make_step(replace(SHAPE, rule=replace(RULE, shares=True)))
    outcome = Reference().decode_step(step)
    if what == "partition":
        outcome.partitions.partitions_RC[0, 3] += 1
    elif what == "page":
        outcome.pages_N[5] += 1
    elif what == "live":
        outcome.live_N[-1] ^= 1
    elif what == "frame":
        outcome.frames_N[5] = outcome.frames_N[6]
    elif what == "wanted":
        outcome = outcome._replace(wanted=outcome.wanted + 1)
    elif what == "share":
        outcome.share_RG[0, 0] *= 0.99
    else:
        outcome.attended.out[0, 0, 0] += 0.05
    with pytest.raises(AssertionError):
        assert_reads(step, outcome)
        assert_answers(step, outcome)
