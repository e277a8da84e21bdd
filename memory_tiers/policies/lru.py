"""Least recently used: the frame whose last use is longest ago goes first."""

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.ranking import EMPTY, empty_ranks, lowest


class Lru(EvictionPolicy):
    """Exact LRU over one timestamp per frame, victims by one batched top-k."""

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._now = 0
        self._used_F = empty_ranks(num_frames, device)

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._now += 1
        self._used_F.index_fill_(0, frames_N, self._now)

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._used_F.index_fill_(0, frames_N, EMPTY)

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy; frames touched together go in any order."""
        return lowest(self._used_F, count, pinned_F)
