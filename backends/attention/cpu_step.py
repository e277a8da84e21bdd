"""A decode step in one compiled call.

What stays from one call to the next is checked and packed once, and told by identity: with cold
caches, a look at a tensor costs as much as the read of a page.
"""

import ctypes
import struct
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from backends.attention.base import Attended, SelectRule, StepInputs, StepOutcome
from memory_tiers.base import TableView
from memory_tiers.summary_store import SEGMENT
from sparse_algos.selection import Selection

# As `Step` in step.h: what each call sets, what stays, and what comes back.
CALL = struct.Struct("=7Q")
FIXED = struct.Struct("=12Q19qd")
RESULTS = struct.Struct("=3q")
RESULTS_AT = CALL.size + FIXED.size
REDUCES = {"max": 0, "mean": 1, "mass": 2}


class Fixed(NamedTuple):
    """What a block was filled for."""

    pool_FPSD: Tensor
    segments_NCE: Tensor
    table: TableView
    rule: SelectRule
    scale: float
    num_tokens_R: Tensor
    columns_R: Tensor | None


class Buffers(NamedTuple):
    """Where a step writes; N is the room that there is."""

    out_RGD: Tensor
    lse_RG: Tensor
    indptr_R1: Tensor
    pages_N: Tensor
    frames_N: Tensor
    live_N: Tensor
    share_RG: Tensor | None


class StepCaller:
    """Calls a compiled step, one at a time: its block and its buffers are used again."""

    def __init__(self, entry: Callable[..., int], threads_for: Callable[[int], int]) -> None:
        """`entry` takes the address of a block, and whether to attend."""
        self._entry = entry
        self._threads_for = threads_for
        self._block = ctypes.create_string_buffer(RESULTS_AT + RESULTS.size)
        self._address = ctypes.addressof(self._block)
        self._fixed: Fixed | None = None
        self._total = 0

    def prepare(self, step: StepInputs) -> bool:
        """Check and pack what stays; False where it cannot read such summaries."""
        rule = step.rule
        if not scores_in_place(step.segments_NCE) or rule.group_reduce not in REDUCES:
            return False
        if rule.shares and rule.group_reduce != "mass":
            return False
        _check(step)
        self._pack(step)
        self._fixed = Fixed(
            step.pool_FPSD,
            step.segments_NCE,
            step.table,
            step.rule,
            step.scale,
            step.num_tokens_R,
            step.columns_R,
        )
        return True

    def is_ready_for(self, step: StepInputs) -> bool:
        """Whether `prepare` was called for this step, or one that differs in values only."""
        fixed, table = self._fixed, step.table
        return (
            fixed is not None
            and _alike(step.pool_FPSD, fixed.pool_FPSD)
            and _alike(step.segments_NCE, fixed.segments_NCE)
            and table.cells_C is fixed.table.cells_C
            and table.base_G is fixed.table.base_G
            and table.bits_G is fixed.table.bits_G
            and step.num_tokens_R is fixed.num_tokens_R
            and step.columns_R is fixed.columns_R
            and step.rule is fixed.rule
            and step.scale == fixed.scale
        )

    def __call__(self, step: StepInputs, *, attend: bool) -> StepOutcome:
        """Select, and attend if asked to, what this is ready for."""
        traced_RC = self._trace(step)
        CALL.pack_into(self._block, 0, *_addresses(step), _address(traced_RC))
        refused = self._entry(self._address, attend)
        assert not refused, "a step points outside its segments, its table or its pool"
        total, wanted, missing = RESULTS.unpack_from(self._block, RESULTS_AT)
        if total != self._total:
            self._total, self._filled = total, _filled(self._buffers, total)
        return StepOutcome(
            self._attended if attend and not missing else None,
            *self._filled,
            wanted,
            missing,
            None if traced_RC is None else Selection(traced_RC, traced_RC >= 0),
            self._buffers.share_RG,
        )

    def _pack(self, step: StepInputs) -> None:
        rule, table, pool_FPSD = step.rule, step.table, step.pool_FPSD
        num_rows, group_size, entries = step.scoring_RQE.shape
        num_frames, _, page_tokens, _ = pool_FPSD.shape
        num_segments, segment, _ = step.segments_NCE.shape
        width = step.directory_RW.shape[1]
        room = pages_in_row(rule.columns, rule.partition_size, page_tokens)
        self._buffers = _buffers(step.query_RGD, room, shares=rule.shares)
        self._attended = Attended(self._buffers.out_RGD, self._buffers.lse_RG)
        self._total, self._filled = 0, _filled(self._buffers, 0)
        segment_bytes = segment * entries * step.segments_NCE.itemsize
        page_bytes = pool_FPSD[:1].numel() * pool_FPSD.itemsize
        FIXED.pack_into(
            self._block,
            CALL.size,
            *map(_address, (step.num_tokens_R, step.columns_R, *table)),
            *map(_address, self._buffers),
            *(num_rows, width, segment, num_segments),
            *(len(table.cells_C), 0 if table.bits_G is None else len(table.bits_G)),
            *(num_frames, group_size, entries, page_tokens),
            *(rule.columns, rule.partition_size, rule.sinks, rule.recents),
            *(REDUCES[rule.group_reduce], room, lies_by_entry(step.segments_NCE)),
            self._threads_for(num_rows * width * segment_bytes),
            self._threads_for(num_rows * room * page_bytes),
            step.scale,
        )

    def _trace(self, step: StepInputs) -> Tensor | None:
        if not step.trace:
            return None
        return torch.empty(len(step.query_RGD), step.rule.columns, dtype=torch.int64)


def scores_in_place(segments_NCE: Tensor) -> bool:
    """Whether compiled code scores summaries of this shape."""
    _, segment, entries = segments_NCE.shape
    in_blocks = segment == SEGMENT or (SEGMENT % segment == 0 and not lies_by_entry(segments_NCE))
    return in_blocks and entries % 16 == 0


def lies_by_entry(segments_NCE: Tensor) -> bool:
    """Whether neighbours lie together entry by entry, and not whole."""
    if segments_NCE.is_contiguous():
        return False
    assert segments_NCE.mT.is_contiguous()
    return True


def pages_in_row(columns: int, partition_size: int, page_tokens: int) -> int:
    """Most pages that so many partitions can lie on."""
    if page_tokens % partition_size == 0:
        return columns
    if partition_size % page_tokens == 0:
        return columns * (partition_size // page_tokens)
    return columns * ((partition_size + page_tokens - 2) // page_tokens + 1)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether a kernel that is ready for one can read the other."""
    return one is other or (
        one.shape == other.shape and one.dtype == other.dtype and one.stride() == other.stride()
    )


def _addresses(step: StepInputs) -> tuple[int, ...]:
    """Of the tensors that differ in each call."""
    query_RGD, scoring_RQE, directory_RW = step.query_RGD, step.scoring_RQE, step.directory_RW
    assert query_RGD.is_contiguous() and scoring_RQE.is_contiguous()
    assert directory_RW.is_contiguous()
    return (
        query_RGD.data_ptr(),
        scoring_RQE.data_ptr(),
        directory_RW.data_ptr(),
        step.first_page_R.data_ptr(),
        step.segments_NCE.data_ptr(),
        step.pool_FPSD.data_ptr(),
    )


def _check(step: StepInputs) -> None:
    """What stays fits together."""
    num_rows, group_size, head_dim = step.query_RGD.shape
    pool_FPSD, segments_NCE, table = step.pool_FPSD, step.segments_NCE, step.table
    rows = (step.num_tokens_R, step.first_page_R, step.directory_RW, step.columns_R)
    for one in (each for each in rows if each is not None):
        assert one.dtype == torch.int64 and len(one) == num_rows and one.is_contiguous()
    assert pool_FPSD.shape[1] == 2 and pool_FPSD.shape[2] <= 64 and pool_FPSD.shape[3] == head_dim
    assert SEGMENT % segments_NCE.shape[1] == 0
    assert step.scoring_RQE.shape == (num_rows, group_size, segments_NCE.shape[2])
    assert pool_FPSD.dtype == segments_NCE.dtype == step.query_RGD.dtype == step.scoring_RQE.dtype
    assert pool_FPSD.is_contiguous()
    assert table.cells_C.dtype == torch.int32 and table.cells_C.is_contiguous()
    if table.bits_G is not None and table.base_G is not None:
        assert table.bits_G.dtype == torch.int64 and table.base_G.dtype == torch.int32
        assert len(table.bits_G) == len(table.base_G)
        assert table.bits_G.is_contiguous() and table.base_G.is_contiguous()


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _buffers(query_RGD: Tensor, room: int, *, shares: bool) -> Buffers:
    num_rows, group_size, _ = query_RGD.shape
    return Buffers(
        torch.empty_like(query_RGD),
        torch.empty(num_rows, group_size),
        torch.empty(num_rows + 1, dtype=torch.int64),
        torch.empty(num_rows * room, dtype=torch.int64),
        torch.empty(num_rows * room, dtype=torch.int32),
        torch.empty(num_rows * room, dtype=torch.int64),
        torch.empty(num_rows, group_size) if shares else None,
    )


def _filled(buffers: Buffers, total: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pages_N, frames_N, live_N = buffers.pages_N, buffers.frames_N, buffers.live_N
    return buffers.indptr_R1, pages_N[:total], frames_N[:total], live_N[:total]
