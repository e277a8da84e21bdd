"""Least recently used: the frame whose last use is longest ago goes first."""

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy

EMPTY = torch.iinfo(torch.int64).max


class Lru(EvictionPolicy):
    """Exact LRU over one timestamp per frame, victims by one batched top-k."""

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._now = 0
        self._used_F = torch.full((num_frames,), EMPTY, device=device)

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._now += 1
        self._used_F[frames_N] = self._now

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._used_F[frames_N] = EMPTY

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy; frames touched together go in any order."""
        age_F = self._used_F.masked_fill(pinned_F, EMPTY)
        oldest = age_F.topk(min(count, age_F.numel()), largest=False)
        return oldest.indices[oldest.values < EMPTY]
