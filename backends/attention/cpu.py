"""The attention kernel in C++ for CPUs, built by the compiler at hand and called through ctypes."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from backends.attention.base import Attended, FrameSelection, StepInputs, StepOutcome
from backends.attention.cpu_step import StepCaller, lies_by_entry, scores_in_place
from backends.attention.tiled import Tiled
from memory_tiers.base import count_bits
from memory_tiers.native import load_library

SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in ("cpu.cpp", "attend.h", "score.h", "best.h", "choose.h", "step.h", "vector.h")
)
ENTRIES = {torch.float32: "f32", torch.bfloat16: "bf16"}
# Below this, waking a second thread takes longer than the read.
BYTES_PER_THREAD = 1 << 20
ARGUMENTS = [
    *[ctypes.c_void_p] * 8,
    *[ctypes.c_int64] * 4,
    *[ctypes.c_int] * 2,
    ctypes.c_float,
    ctypes.c_int,
]
SCORE_ARGUMENTS = [*[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 4, *[ctypes.c_int] * 5]
PRODUCT_ARGUMENTS = [*[ctypes.c_void_p] * 6, *[ctypes.c_int64] * 4, *[ctypes.c_int] * 3]
# Queries that share one pass over the summaries.
QUERIES_PER_PASS = 4


class Cpu(Tiled):
    """Compiled decode for one head size, and scores; prefill in tiles, or torch's operator."""

    name = "cpu-cpp"
    fused: ClassVar[bool] = True

    def __init__(self, head_dim: int) -> None:
        """Build the kernel, or load it from the cache; raises UnavailableError."""
        super().__init__(head_dim)
        library = load_library("attention", SOURCES, (f"-DHEAD_DIM={head_dim}",))
        self.head_dim = head_dim
        self._entries = _entries(library, "attend", ARGUMENTS)
        self._products = _entries(library, "products", PRODUCT_ARGUMENTS)
        self._scores = _entries(library, "score", SCORE_ARGUMENTS)
        steps = _entries(library, "step", [ctypes.c_void_p, ctypes.c_int])
        self._steps = {dtype: StepCaller(entry, _threads_for) for dtype, entry in steps.items()}
        self._ready: StepCaller | None = None

    def decode(
        self, query_RGD: Tensor, pool_FPSD: Tensor, selection: FrameSelection, scale: float
    ) -> Attended:
        """See AttentionKernel. The pool is contiguous; the result is the same for any threads."""
        ready = self._checked(query_RGD, pool_FPSD, selection)
        num_rows, group_size, _ = query_RGD.shape
        query_RGD, bias_GV = query_RGD.contiguous(), ready.bias_GV
        out_RGD, lse_RG = torch.empty_like(query_RGD), torch.empty(num_rows, group_size)
        refused = self._entries[query_RGD.dtype](
            query_RGD.data_ptr(),
            pool_FPSD.data_ptr(),
            ready.indptr_R1.data_ptr(),
            ready.frames_N.data_ptr(),
            ready.live_N.data_ptr(),
            out_RGD.data_ptr(),
            lse_RG.data_ptr(),
            None if bias_GV is None else bias_GV.data_ptr(),
            num_rows,
            len(ready.frames_N),
            len(pool_FPSD),
            0 if bias_GV is None else bias_GV.shape[1],
            group_size,
            pool_FPSD.shape[2],
            scale,
            _threads_for(len(ready.frames_N) * pool_FPSD.stride(0) * pool_FPSD.itemsize),
        )
        assert not refused, f"the selection points outside the pool of {len(pool_FPSD)} frames"
        return Attended(out_RGD, lse_RG)

    def products(self, query_RGD: Tensor, pool_FPSD: Tensor, selection: FrameSelection) -> Tensor:
        """See AttentionKernel."""
        ready = self._checked(query_RGD, pool_FPSD, selection)
        num_rows, group_size, _ = query_RGD.shape
        query_RGD = query_RGD.contiguous()
        num_slots = count_bits(ready.live_N, pool_FPSD.shape[2])
        out_GV = torch.empty(group_size, num_slots)
        refused = self._products[query_RGD.dtype](
            query_RGD.data_ptr(),
            pool_FPSD.data_ptr(),
            ready.indptr_R1.data_ptr(),
            ready.frames_N.data_ptr(),
            ready.live_N.data_ptr(),
            out_GV.data_ptr(),
            num_rows,
            len(ready.frames_N),
            len(pool_FPSD),
            num_slots,
            group_size,
            pool_FPSD.shape[2],
            _threads_for(len(ready.frames_N) * pool_FPSD.stride(0) * pool_FPSD.itemsize // 2),
        )
        assert not refused, f"the selection points outside the pool of {len(pool_FPSD)} frames"
        return out_GV

    def score(
        self, query_RQE: Tensor, segments_NCE: Tensor, directory_RW: Tensor, num_partitions: int
    ) -> Tensor:
        """See AttentionKernel. The pool is contiguous; the result is the same for any threads."""
        num_rows, num_queries, entries = query_RQE.shape
        num_segments, segment, _ = segments_NCE.shape
        if query_RQE.dtype not in self._scores or not scores_in_place(segments_NCE):
            return super().score(query_RQE, segments_NCE, directory_RW, num_partitions)
        assert query_RQE.dtype == segments_NCE.dtype
        assert directory_RW.dtype == torch.int64 and segments_NCE.shape[2] == entries
        assert len(directory_RW) == num_rows and directory_RW.shape[1] * segment >= num_partitions
        query_RQE, directory_RW = query_RQE.contiguous(), directory_RW.contiguous()
        scores_RQP = torch.empty(num_rows, num_queries, num_partitions)
        passes = -(-num_queries // QUERIES_PER_PASS)
        num_bytes = num_rows * num_partitions * entries * segments_NCE.itemsize
        tensors = (query_RQE, segments_NCE, directory_RW, scores_RQP)
        refused = self._scores[query_RQE.dtype](
            *(tensor.data_ptr() for tensor in tensors),
            num_rows,
            directory_RW.shape[1],
            num_partitions,
            num_segments,
            segment,
            num_queries,
            entries,
            lies_by_entry(segments_NCE),
            _threads_for(num_bytes * passes),
        )
        assert not refused, f"the directory points outside the pool of {num_segments} segments"
        return scores_RQP

    def select(self, step: StepInputs) -> StepOutcome:
        """See AttentionKernel."""
        caller = self._caller_for(step)
        return super().select(step) if caller is None else caller(step, attend=False)

    def decode_step(self, step: StepInputs) -> StepOutcome:
        """See AttentionKernel. The result is the same for any threads."""
        caller = self._caller_for(step)
        return super().decode_step(step) if caller is None else caller(step, attend=True)

    def _checked(
        self, query_RGD: Tensor, pool_FPSD: Tensor, selection: FrameSelection
    ) -> FrameSelection:
        """The selection as the compiled code takes it."""
        indptr_R1, live_N = selection.indptr_R1.contiguous(), selection.live_N.contiguous()
        frames_N, bias_GV = selection.frames_N.to(torch.int32).contiguous(), selection.bias_GV
        assert query_RGD.dtype == pool_FPSD.dtype and pool_FPSD.is_contiguous()
        assert query_RGD.shape[-1] == pool_FPSD.shape[-1] == self.head_dim
        assert pool_FPSD.shape[2] <= 64 and len(frames_N) == len(live_N)
        assert len(indptr_R1) == len(query_RGD) + 1
        assert indptr_R1.dtype == live_N.dtype == torch.int64
        if bias_GV is not None:
            assert bias_GV.dtype == torch.float32 and len(bias_GV) == query_RGD.shape[1]
            bias_GV = bias_GV.contiguous()
        return FrameSelection(indptr_R1, frames_N, live_N, bias_GV)

    def _caller_for(self, step: StepInputs) -> StepCaller | None:
        """A caller that is ready for the step; None where no compiled one serves it."""
        if self._ready is None or not self._ready.is_ready_for(step):
            assert step.pool_FPSD.shape[3] == self.head_dim
            caller = self._steps.get(step.segments_NCE.dtype)
            self._ready = caller if caller is not None and caller.prepare(step) else None
        return self._ready


def _entries(
    library: ctypes.CDLL, name: str, arguments: Sequence[type[Any]]
) -> Mapping[torch.dtype, Callable[..., int]]:
    """The entry points called `name`, by dtype."""
    entries = {dtype: library[f"{name}_{suffix}"] for dtype, suffix in ENTRIES.items()}
    for entry in entries.values():
        entry.argtypes = arguments
    return entries


def _threads_for(num_bytes: int) -> int:
    """Threads that are worth waking up for a read of that size."""
    return max(1, min(torch.get_num_threads(), num_bytes // BYTES_PER_THREAD))


def unsupported(
    *, device: torch.device, dtype: torch.dtype, head_dim: int, page_size: int
) -> str | None:
    """Why the compiled kernel cannot serve these shapes; None where it can."""
    if device.type != "cpu":
        return f"it runs on cpu, not on {device.type}"
    if dtype not in ENTRIES:
        return f"it computes in {' and '.join(map(str, ENTRIES))}, not in {dtype}"
    if head_dim % 16 or not 16 <= head_dim <= 256:
        return f"head_dim is {head_dim}, not a multiple of 16 up to 256"
    if not 1 <= page_size <= 64:
        return f"a page has {page_size} slots, not 1 to 64"
    return None
