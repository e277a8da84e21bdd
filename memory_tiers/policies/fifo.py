"""First in, first out: the frame that was filled longest ago goes first."""

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.ranking import EMPTY, empty_ranks, lowest


class Fifo(EvictionPolicy):
    """One timestamp per frame, set when the frame is filled."""

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._now = 0
        self._filled_F = empty_ranks(num_frames, device)

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._now += 1
        # An empty frame ranks above every time: the smaller of the two keeps the first one.
        first_N = self._filled_F.index_select(0, frames_N).clamp(max=self._now)
        self._filled_F.index_copy_(0, frames_N, first_N)

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._filled_F.index_fill_(0, frames_N, EMPTY)

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy; frames filled together go in any order."""
        return lowest(self._filled_F, count, pinned_F)
