"""Least frequently used, with counts that age; the least recent goes first among equal counts."""

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.ranking import EMPTY, empty_ranks, lowest

COUNT_BIT = 32
ONE_READ = 1 << COUNT_BIT
TIME_MASK = ONE_READ - 1


class Lfu(EvictionPolicy):
    """Touches since the page came in, above the time of the last one, in one int64 per frame.

    Ageing is the reset of TinyLFU (Einziger et al., arXiv:1512.00727), made on the counts of
    resident pages: all counts halve once `period` touches per frame were made, over all frames.
    """

    def __init__(self, *, period: int | None) -> None:
        """None: counts never age."""
        if period is not None and period < 1:
            raise ValueError(f"cache.policy.period={period} must be positive, or null: no ageing")
        self._period = period

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._now = 0
        self._touches = 0
        self._uses_F = empty_ranks(num_frames, device)

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._now += 1
        uses_N = self._uses_F.index_select(0, frames_N)
        counts_N = uses_N.masked_fill_(uses_N == EMPTY, 0).bitwise_and_(~TIME_MASK)
        self._uses_F.index_copy_(0, frames_N, counts_N.add_(ONE_READ + self._now))
        self._touches += frames_N.numel()
        if self._period is not None and self._touches >= self._period * self._uses_F.numel():
            self._age()

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._uses_F.index_fill_(0, frames_N, EMPTY)

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy."""
        return lowest(self._uses_F, count, pinned_F)

    def _age(self) -> None:
        self._touches = 0
        time_F = self._uses_F & TIME_MASK
        halved_F = (self._uses_F >> (COUNT_BIT + 1) << COUNT_BIT) + time_F
        self._uses_F = torch.where(self._uses_F < EMPTY, halved_F, EMPTY)
