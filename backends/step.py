"""Whose rows a forward pass holds, and which way through attention each of them takes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.batch import Batch
from backends.paged_attention import PagedAttention


@dataclass(frozen=True)
class Chunk:
    """Consecutive prompt tokens of one sequence; question tokens take the sparse path."""

    batch: Batch
    is_question: bool


@dataclass(frozen=True)
class Step:
    """Whose rows a forward pass holds: the decode rows first, then the chunks in order."""

    attention: PagedAttention
    decode: Batch | None
    chunks: tuple[Chunk, ...]

    def attend(
        self, layer: int, query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, scale: float
    ) -> Tensor:
        """Attention of every row, [N, H, D]."""
        counters = self.attention.memory.counters
        parts, start = [], 0
        for batch, is_question, is_decode in self._parts():
            rows = slice(start, start + len(batch.slots) * batch.new)
            tensors = query_NHD[rows], key_NKD[rows], value_NKD[rows]
            if is_decode:
                counters.current = counters.decode
            else:
                counters.current = counters.question if is_question else counters.prefill
            if is_decode or (is_question and self.attention.acts_on(layer)):
                query, key, value = (one.unflatten(0, (-1, batch.new)) for one in tensors)
                out_BMHD = self.attention.sparse(layer, batch, query, key, value, scale)
                parts.append(out_BMHD.flatten(0, 1))
            else:
                parts.append(self.attention.dense(layer, batch, *tensors, scale))
            start = rows.stop
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _parts(self) -> list[tuple[Batch, bool, bool]]:
        decode = [(self.decode, False, True)] if self.decode is not None else []
        return decode + [(chunk.batch, chunk.is_question, False) for chunk in self.chunks]
