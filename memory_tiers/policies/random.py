"""Random replacement, the yardstick that any policy has to beat; the same for the same seed."""

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.ranking import lowest

MASK_64 = (1 << 64) - 1
MASK_31 = (1 << 31) - 1


class Random(EvictionPolicy):
    """Frames draw numbers once; a hash of the time multiplies them, so each touch shuffles all."""

    def __init__(self, *, seed: int) -> None:
        """The seed of the draw and of every shuffle."""
        self._seed = seed

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._now = 0
        generator = torch.Generator().manual_seed(self._seed)
        self._drawn_F = torch.randint(1 << 31, (num_frames,), generator=generator).to(device)
        self._empty_F = torch.ones(num_frames, dtype=torch.bool, device=device)

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._now += 1
        self._empty_F.index_fill_(0, frames_N, False)

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._empty_F.index_fill_(0, frames_N, True)

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy; the same until the next touch."""
        odd = mixed(self._seed ^ mixed(self._now)) & MASK_31 | 1
        rank_F = (self._drawn_F * odd).bitwise_and_(MASK_31)
        return lowest(rank_F, count, pinned_F | self._empty_F)


def mixed(number: int) -> int:
    """A hash of 64 bits (the finaliser of SplitMix64, Steele et al., OOPSLA 2014)."""
    number = (number + 0x9E3779B97F4A7C15) & MASK_64
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & MASK_64
    number = (number ^ number >> 27) * 0x94D049BB133111EB & MASK_64
    return number ^ number >> 31
