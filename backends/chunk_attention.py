"""Dense attention of a chunk: the prompt tokens of one sequence that a step stores.

Inside the chunk from the new keys themselves, before it from pages, in waves that the fast tier
holds; the parts are merged by their log-sum-exp.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.attention.base import Attended, AttentionKernel, merge
from backends.batch import Batch
from memory_tiers.manager import CacheManager


@dataclass(frozen=True)
class ChunkAttention:
    """Every row of the chunk sees itself and what came before, or a window of that."""

    memory: CacheManager
    kernel: AttentionKernel

    def attend(
        self,
        layer: int,
        batch: Batch,
        query_MHD: Tensor,
        key_MKD: Tensor,
        value_MKD: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """Rows [M, H, D] of a chunk whose keys and values are stored already."""
        query_KQD = _fold(query_MHD, self.memory.geometry.num_kv_heads)
        attended = self._own(query_KQD, key_MKD, value_MKD, scale, window)
        for part in self._past(layer, batch, query_KQD, scale, window):
            attended = merge(attended, part)
        return _unfold(attended.out, query_MHD.shape)

    def _own(
        self,
        query_KQD: Tensor,
        key_MKD: Tensor,
        value_MKD: Tensor,
        scale: float,
        window: int | None,
    ) -> Attended:
        key_KMD, value_KMD = key_MKD.transpose(0, 1), value_MKD.transpose(0, 1)
        if window is None:
            return self.kernel.prefill_causal(query_KQD, key_KMD, value_KMD, scale)
        row_M = torch.arange(len(key_MKD), device=key_MKD.device)
        mask_MT = _in_sight(row_M.unsqueeze(1) - row_M, window)
        mask_QT = mask_MT.repeat(query_KQD.shape[1] // len(key_MKD), 1)
        return self.kernel.prefill(query_KQD, key_KMD, value_KMD, mask_QT, scale)

    def _past(
        self, layer: int, batch: Batch, query_KQD: Tensor, scale: float, window: int | None
    ) -> Iterator[Attended]:
        size, count = self.memory.geometry.page_tokens, self.memory.counters.current
        before = batch.longest - batch.new
        first = 0 if window is None else max(0, before - window + 1) // size
        last = -(-before // size)
        step = max(1, self.memory.num_fast_frames // self.memory.geometry.num_kv_heads)
        for start in range(first, last, step):
            stop = min(start + step, last)
            pages_KP = batch.pages(layer, start, stop)
            frames_KP = self.memory.fetch(pages_KP.flatten()).frames_N.view(pages_KP.shape)
            count.pages_read += pages_KP.numel()
            count.bytes_read += pages_KP.numel() * self.memory.geometry.page_bytes
            tokens = min(stop * size, before) - start * size
            key_KTD, value_KTD = (
                self.memory.pool_FPSD[frames_KP, part].flatten(1, 2)[:, :tokens] for part in (0, 1)
            )
            mask_QT = _past_mask(batch, start * size, tokens, window, query_KQD.shape[1])
            yield self.kernel.prefill(query_KQD, key_KTD, value_KTD, mask_QT, scale)


def _past_mask(
    batch: Batch, start: int, tokens: int, window: int | None, num_queries: int
) -> Tensor | None:
    """Which stored tokens, from `start` on, each query sees; None when it is all of them."""
    if window is None:
        return None
    position_M1 = batch.positions_RM[0].unsqueeze(1)
    gap_MT = position_M1 - torch.arange(start, start + tokens, device=position_M1.device)
    return _in_sight(gap_MT, window).repeat(num_queries // batch.new, 1)


def _in_sight(gap_MT: Tensor, window: int) -> Tensor:
    return (gap_MT >= 0) & (gap_MT < window)


def _fold(query_MHD: Tensor, num_kv_heads: int) -> Tensor:
    """Queries by kv head, group outermost: [K, G * M, D]."""
    return query_MHD.unflatten(1, (num_kv_heads, -1)).permute(1, 2, 0, 3).flatten(1, 2)


def _unfold(out_KQD: Tensor, shape_MHD: torch.Size) -> Tensor:
    num_rows, num_heads, _ = shape_MHD
    out_KGMD = out_KQD.unflatten(1, (num_heads // len(out_KQD), num_rows))
    return out_KGMD.permute(2, 0, 1, 3).reshape(shape_MHD)
