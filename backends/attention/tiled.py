"""Prefill in tiles of AMX: many rows over all tokens, or over the blocks of a plan.

Where the processor has no such tiles, or the shapes do not fit them, the operators of `Reference`
serve.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from backends.attention.base import Attended
from backends.attention.reference import Reference
from memory_tiers.native import UnavailableError, load_library
from sparse_algos.pattern import BlockPlan, Chunk

SOURCES = tuple(Path(__file__).with_name(name) for name in ("blocks.cpp", "amx.h"))
# As in amx.h: tokens and rows that are one group, and the most rows of a block of work.
GROUP, ROWS = 32, 128


class Asked(ctypes.Structure):
    """What `attend_rows` of blocks.cpp takes."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "chosen", "columns")),
        *((name, ctypes.c_void_p) for name in ("out", "packed", "lse")),
        *((name, ctypes.c_int64) for name in ("K", "G", "M", "T", "C", "block", "past", "causal")),
        *((name, ctypes.c_int64) for name in ("key_head", "key_token")),
        *((name, ctypes.c_int64) for name in ("value_head", "value_token")),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int),
    )


class Tiled(Reference):
    """See AttentionKernel; what is masked or not in bfloat16 is attended as `Reference` does."""

    def __init__(self, head_dim: int) -> None:
        """Build the code, or load it from the cache; without tiles `library` is None."""
        self.library = _library(head_dim)

    def prefill(
        self,
        query_KMD: Tensor,
        key_KTD: Tensor,
        value_KTD: Tensor,
        mask_MT: Tensor | None,
        scale: float,
    ) -> Attended:
        """See AttentionKernel."""
        if mask_MT is not None or not self._serves(query_KMD, key_KTD, ROWS):
            return super().prefill(query_KMD, key_KTD, value_KTD, mask_MT, scale)
        return self._attend(query_KMD.unsqueeze(1), key_KTD, value_KTD, scale)

    def prefill_causal(
        self, query_KMD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scale: float
    ) -> Attended:
        """See AttentionKernel."""
        if not self._serves(query_KMD, key_KTD, ROWS):
            return super().prefill_causal(query_KMD, key_KTD, value_KTD, scale)
        query_KGMD = query_KMD.unflatten(1, (-1, key_KTD.shape[1]))
        return self._attend(query_KGMD, key_KTD, value_KTD, scale, past=0)

    def prefill_blocks(self, plan: BlockPlan, chunk: Chunk, value_KTD: Tensor) -> Tensor:
        """See AttentionKernel."""
        query_KGMD, room = chunk.query_KGMD, plan.num_tokens
        key_KTD, value_KTD = chunk.key_KTD[:, :room], value_KTD[:, :room]
        if not self._serves(query_KGMD, key_KTD, plan.block_tokens):
            return super().prefill_blocks(plan, chunk, value_KTD)
        done = self._attend(query_KGMD, key_KTD, value_KTD, chunk.scale, chunk.past, plan)
        return done.out.view(query_KGMD.shape)

    def _serves(self, query: Tensor, key_KTD: Tensor, block_tokens: int) -> bool:
        divides = block_tokens % (ROWS if block_tokens > ROWS else GROUP) == 0
        is_any = bool(query.numel() and key_KTD.numel())
        return self.library is not None and query.dtype == torch.bfloat16 and divides and is_any

    def _attend(
        self,
        query_KGMD: Tensor,
        key_KTD: Tensor,
        value_KTD: Tensor,
        scale: float,
        past: int | None = None,
        plan: BlockPlan | None = None,
    ) -> Attended:
        """Rows from position `past` on, or over all tokens without one; see amx.h for `packed`."""
        assert self.library is not None and query_KGMD.shape[3] == key_KTD.shape[2]
        assert key_KTD.dtype == value_KTD.dtype == query_KGMD.dtype
        query_KGMD = query_KGMD.contiguous()
        key_KTD, value_KTD = (
            one if one.stride(2) == 1 else one.contiguous() for one in (key_KTD, value_KTD)
        )
        (num_heads, group_size, num_rows, head_dim), num_tokens = query_KGMD.shape, key_KTD.shape[1]
        chosen_HIP = columns_HC = None
        if plan is not None:
            chosen_HIP = plan.blocks_HIP.contiguous()
            columns_HC = None if plan.columns_HC is None else plan.columns_HC.contiguous()
            assert plan.num_tokens == num_tokens
        num_columns = 0 if columns_HC is None else columns_HC.shape[1]
        if columns_HC is not None and num_columns:
            assert columns_HC.dtype == torch.int64 and int(columns_HC.max()) < num_tokens
        num_groups = -(-num_tokens // GROUP) + group_size * -(-num_columns // GROUP)
        packed = query_KGMD.new_empty(2 * num_groups * GROUP * head_dim)
        out_KGMD = torch.empty_like(query_KGMD)
        lse_KGM = torch.empty(query_KGMD.shape[:3])
        given = (query_KGMD, key_KTD, value_KTD, chosen_HIP, columns_HC)
        asked = Asked(
            *(None if one is None else one.data_ptr() for one in given),
            *(one.data_ptr() for one in (out_KGMD, packed, lse_KGM)),
            *(num_heads, group_size, num_rows, num_tokens, num_columns),
            ROWS if plan is None else plan.block_tokens,
            past or 0,
            past is not None,
            *(stride for one in (key_KTD, value_KTD) for stride in one.stride()[:2]),
            scale,
            torch.get_num_threads(),
        )
        self.library.attend_rows(ctypes.byref(asked))
        return Attended(out_KGMD.flatten(1, 2), lse_KGM.flatten(1))


def _library(head_dim: int) -> ctypes.CDLL | None:
    """The compiled code; None where tiles do not serve."""
    if head_dim % GROUP:
        return None
    try:
        library = load_library("blocks", SOURCES, (f"-DHEAD_DIM={head_dim}",))
    except UnavailableError:
        return None
    return library if library.has_tiles() else None
