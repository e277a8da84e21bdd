"""Decode steps made of small whole numbers, and the plain loops that say what they must read.

Scores of small whole numbers are exact in every dtype and order of summation: whatever selects
otherwise is wrong, ties included.
"""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from backends.attention.base import Attended, SelectRule, StepInputs, StepOutcome
from memory_tiers.base import TableView
from memory_tiers.summary_store import SEGMENT
from tests.parity.exact import SCALE, attend_exactly

ENTRIES = 16
DTYPES = (torch.float32, torch.bfloat16)
REDUCES = ("max", "mean", "mass")


@dataclass(frozen=True)
class Shape:
    """A step to make; shares: columns of each row, or None for the rule's."""

    rule: SelectRule
    page_tokens: int
    tokens: list[int]
    group_size: int
    shares: list[int] | None
    two_levels: bool
    dtype: torch.dtype
    head_dim: int
    seed: int
    unknown: bool = False
    missing: int = 0
    by_entry: bool = False


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Page sizes, partitions that divide them or not, ragged and empty rows, all limits."""
    page_tokens = draw(st.sampled_from([8, 16, 24, 33, 64]))
    sizes = [1, page_tokens // 2, page_tokens, 2 * page_tokens, 5, page_tokens + 3]
    size = draw(st.sampled_from(sizes))
    tokens = draw(st.lists(st.integers(0, 90 * size if size > 1 else 700), min_size=1, max_size=4))
    columns = draw(st.integers(1, 40))
    shares = st.lists(st.integers(0, 45), min_size=len(tokens), max_size=len(tokens))
    rule = SelectRule(
        columns=columns,
        partition_size=size,
        sinks=draw(st.integers(0, 2 * size)),
        recents=draw(st.integers(1, 3 * size)),
        group_reduce=draw(st.sampled_from(REDUCES)),
        shares=draw(st.booleans()),
    )
    return Shape(
        rule=rule,
        page_tokens=page_tokens,
        tokens=tokens,
        group_size=draw(st.sampled_from([1, 2, 4, 7])),
        shares=draw(st.none() | shares),
        two_levels=draw(st.booleans()),
        dtype=draw(st.sampled_from(DTYPES)),
        head_dim=64,
        seed=draw(st.integers(0, 1000)),
        unknown=draw(st.booleans()),
        missing=draw(st.sampled_from([0, 0, 0, 3])),
        by_entry=draw(st.booleans()),
    )


def flat_view(frame_of: dict[int, int], num_pages: int) -> TableView:
    """One cell for every page."""
    cells_C = torch.full((num_pages,), -1, dtype=torch.int32)
    for page, frame in frame_of.items():
        cells_C[page] = frame
    return TableView(cells_C)


def two_level_view(frame_of: dict[int, int], num_pages: int) -> TableView:
    """Groups of 64 pages, scattered, with room between them that holds no frame."""
    num_groups = -(-num_pages // 64)
    cells_C = torch.full((num_groups * 70,), 1 << 30, dtype=torch.int32)
    base_G = (torch.randperm(num_groups) * 70 + 3).int()
    bits = [0] * num_groups
    for page in sorted(frame_of):
        cells_C[base_G[page // 64] + bits[page // 64].bit_count()] = frame_of[page]
        bits[page // 64] |= 1 << page % 64
    signed = [word - (1 << 64) if word >> 63 else word for word in bits]
    return TableView(cells_C, base_G, torch.tensor(signed, dtype=torch.int64))


def make_step(shape: Shape) -> StepInputs:
    """A step in which what no row reads is NaN: dead slots, other tokens, absent segments."""
    torch.manual_seed(shape.seed)
    num_rows, size = len(shape.tokens), shape.rule.partition_size
    longest = max([*shape.tokens, 1])
    width = -(-longest // (size * SEGMENT))
    query_RGD = torch.randn(num_rows, shape.group_size, shape.head_dim).to(shape.dtype)
    scoring_RQE = torch.randint(-1, 2, (num_rows, shape.group_size, ENTRIES)).to(shape.dtype)
    directory_RW = torch.randperm(num_rows * width + 1)[: num_rows * width].view(num_rows, width)
    segments_NCE = torch.full((num_rows * width + 1, SEGMENT, ENTRIES), torch.nan)
    for row, tokens in enumerate(shape.tokens):
        count = -(-tokens // size)
        for partition in range(count):
            segment = directory_RW[row, partition // SEGMENT]
            segments_NCE[segment, partition % SEGMENT] = torch.randint(-8, 9, (ENTRIES,)).float()
        directory_RW[row, -(-count // SEGMENT) :] = -1
    if shape.unknown:
        segments_NCE[:, ::3, 5] = torch.nan
    if shape.by_entry:
        segments_NCE = segments_NCE.mT.contiguous().mT
    pages_per_row = -(-longest // shape.page_tokens) + 2
    step = StepInputs(
        query_RGD=query_RGD,
        pool_FPSD=torch.empty(0),
        scale=SCALE,
        scoring_RQE=scoring_RQE,
        segments_NCE=segments_NCE.to(shape.dtype),
        directory_RW=directory_RW,
        num_tokens_R=torch.tensor(shape.tokens, dtype=torch.int64),
        first_page_R=torch.randperm(num_rows) * pages_per_row,
        columns_R=None if shape.shares is None else torch.tensor(shape.shares),
        rule=shape.rule,
        table=TableView(torch.empty(0)),
        trace=True,
    )
    return _with_pages(step, shape, pages_per_row)


def _with_pages(step: StepInputs, shape: Shape, pages_per_row: int) -> StepInputs:
    """The pool and its table: everything a row could select is finite, all else is NaN."""
    num_pages = len(shape.tokens) * pages_per_row
    frames = torch.randperm(num_pages + 3).tolist()
    frame_of, size = {}, shape.page_tokens
    pool_FPSD = torch.full((num_pages + 3, 2, size, shape.head_dim), torch.nan)
    for row, tokens in enumerate(shape.tokens):
        for page in range(-(-tokens // size)):
            frame = frames.pop()
            frame_of[int(step.first_page_R[row]) + page] = frame
            used = min(size, tokens - page * size)
            pool_FPSD[frame, :, :used] = torch.randn(2, used, shape.head_dim)
    for page in list(frame_of)[: shape.missing]:
        del frame_of[page]
    view = two_level_view if shape.two_levels else flat_view
    return step._replace(pool_FPSD=pool_FPSD.to(shape.dtype), table=view(frame_of, num_pages))


def scores_exactly(step: StepInputs, row: int) -> Tensor:
    """Scores of the partitions that a row has, [Q, P] in float64; NaN where there is none."""
    count = -(-int(step.num_tokens_R[row]) // step.rule.partition_size)
    scores_QP = torch.full((step.scoring_RQE.shape[1], count), torch.nan).double()
    for partition in range(count):
        segment = int(step.directory_RW[row, partition // SEGMENT])
        if segment >= 0:
            summary_E = step.segments_NCE[segment, partition % SEGMENT].double()
            scores_QP[:, partition] = step.scoring_RQE[row].double() @ summary_E
    return scores_QP


def ranks_exactly(step: StepInputs, row: int) -> list[tuple[int, float]]:
    """What a row orders its partitions by: whether forced, a number or none, then the score."""
    rule, tokens = step.rule, int(step.num_tokens_R[row])
    scores_QP = scores_exactly(step, row)
    known_P = ~scores_QP.isnan().any(0)
    if rule.group_reduce == "mass":
        mass_QP = scores_QP.masked_fill(~known_P, -torch.inf).softmax(-1)
        rank_P = mass_QP.sum(0)
    else:
        rank_P = scores_QP.amax(0) if rule.group_reduce == "max" else scores_QP.mean(0)
    ranks = []
    for partition, known in enumerate(known_P.tolist()):
        start, end = partition * rule.partition_size, (partition + 1) * rule.partition_size
        forced = start < rule.sinks or end > tokens - rule.recents
        kind = 2 if forced else int(known)
        ranks.append((kind, float(rank_P[partition]) if kind == 1 else 0.0))
    return ranks


def chosen_exactly(step: StepInputs, row: int) -> list[int]:
    """Partitions that a row reads, ascending."""
    ranks = ranks_exactly(step, row)
    allowed = step.rule.columns if step.columns_R is None else int(step.columns_R[row])
    best = sorted(range(len(ranks)), key=lambda p: (-ranks[p][0], -ranks[p][1], p))
    return sorted(best[: min(allowed, step.rule.columns)])


def shares_exactly(step: StepInputs, row: int, chosen: list[int]) -> list[float]:
    """What each query has of the softmax of its scores in the chosen partitions."""
    scores_QP = scores_exactly(step, row)
    known_P = ~scores_QP.isnan().any(0)
    if len(chosen) == len(known_P) or not known_P.any():
        return [1.0] * len(scores_QP)
    terms_QP = (scores_QP - scores_QP[:, known_P].amax(1, keepdim=True)).exp()
    terms_QP = terms_QP.masked_fill(~known_P, 0)
    return (terms_QP[:, chosen].sum(1) / terms_QP.sum(1)).tolist()


def slots_of(step: StepInputs, row: int, partitions: list[int]) -> dict[int, set[int]]:
    """Slots by page id, one token after the other."""
    page_tokens, slots = step.pool_FPSD.shape[2], {}
    for partition in partitions:
        for token in range(*_span(step, row, partition)):
            page = int(step.first_page_R[row]) + token // page_tokens
            slots.setdefault(page, set()).add(token % page_tokens)
    return slots


def _span(step: StepInputs, row: int, partition: int) -> tuple[int, int]:
    start = partition * step.rule.partition_size
    return start, min(start + step.rule.partition_size, int(step.num_tokens_R[row]))


def frame_in(table: TableView, page: int) -> int:
    """Where a page is, or -1."""
    if table.bits_G is None:
        return int(table.cells_C[page])
    here = [other for other in range(64) if int(table.bits_G[page // 64]) >> other & 1]
    if page % 64 not in here:
        return -1
    return int(table.cells_C[int(table.base_G[page // 64]) + here.index(page % 64)])


def partitions_in(outcome: StepOutcome, row: int) -> list[int]:
    """The traced partitions of a row."""
    chosen = outcome.partitions
    return chosen.partitions_RC[row][chosen.valid_RC[row]].tolist()


def attended_exactly(step: StepInputs, chosen: list[list[int]]) -> Attended:
    """Attention over the tokens of the chosen partitions, in float64."""
    rows = []
    for row, partitions in enumerate(chosen):
        slots = slots_of(step, row, partitions)
        seen = [(frame_in(step.table, page), slot) for page in slots for slot in slots[page]]
        frames, offsets = (torch.tensor([one[i] for one in seen]).long() for i in (0, 1))
        tokens_TPD = step.pool_FPSD[frames, :, offsets]
        rows.append(attend_exactly(step.query_RGD[row], tokens_TPD[:, 0], tokens_TPD[:, 1]))
    return Attended(torch.stack([row.out for row in rows]), torch.stack([row.lse for row in rows]))
