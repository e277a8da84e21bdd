"""ARC (Megiddo and Modha, FAST 2003): recency against frequency, tuned by its mistakes."""

import math

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.ghosts import Ghosts
from memory_tiers.policies.ranking import EMPTY, empty_ranks, lowest


class Arc(EvictionPolicy):
    """T1 (read once) and T2 (read again) by last use, and ghosts of both, B1 and B2.

    T1 gives up what it holds above its target, T2 the rest. A page that is in B1 raises the target
    when it comes back, one in B2 lowers it. Other than in the paper, victims are named before it is
    known which pages come, so the target moves after the eviction, and by all pages of a touch at
    once. A page whose sequence has left becomes a ghost as well: nobody says why a frame is empty.
    """

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._now = 0
        self._target = 0.0
        self._num_once = self._num_again = 0
        self._once_F = empty_ranks(num_frames, device)
        self._again_F = empty_ranks(num_frames, device)
        self._page_F = torch.zeros(num_frames, dtype=torch.int64, device=device)
        self._were_once = Ghosts(num_frames, device)
        self._were_again = Ghosts(num_frames, device)

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._now += 1
        once_N = self._once_F.index_select(0, frames_N) < EMPTY
        came_N = self._again_F.index_select(0, frames_N).eq(EMPTY).logical_and_(~once_N)
        self._once_F.index_fill_(0, frames_N, EMPTY)
        self._again_F.index_fill_(0, frames_N, self._now)
        promoted = int(once_N.sum())
        self._num_once -= promoted
        self._num_again += promoted
        if bool(came_N.any()):
            self._admit(frames_N[came_N], pages_N[came_N])

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._num_once -= self._give_up(self._once_F, frames_N, self._were_once)
        self._num_again -= self._give_up(self._again_F, frames_N, self._were_again)

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy."""
        surplus = min(count, max(0, math.ceil(self._num_once - self._target)))
        once_N = lowest(self._once_F, surplus, pinned_F)
        again_N = lowest(self._again_F, count - once_N.numel(), pinned_F)
        if once_N.numel() + again_N.numel() < count:
            once_N = lowest(self._once_F, count - again_N.numel(), pinned_F)
        return torch.cat((once_N, again_N))

    def _give_up(self, used_F: Tensor, frames_N: Tensor, ghosts: Ghosts) -> int:
        """Make ghosts of those that are in one list; how many they were."""
        used_N = used_F[frames_N]
        count = int((used_N < EMPTY).sum())
        ghosts.add(self._page_F[frames_N[used_N.argsort()[:count]]])
        used_F.index_fill_(0, frames_N, EMPTY)
        return count

    def _admit(self, frames_N: Tensor, pages_N: Tensor) -> None:
        self._page_F.index_copy_(0, frames_N, pages_N)
        ratio = max(len(self._were_again), 1) / max(len(self._were_once), 1)
        new_N = ~self._were_once.take(pages_N)
        up = pages_N.numel() - int(new_N.sum())
        new_N &= ~self._were_again.take(pages_N)
        num_new = int(new_N.sum())
        down = pages_N.numel() - up - num_new
        target = self._target + up * max(1.0, ratio) - down * max(1.0, 1 / ratio)
        self._target = min(max(target, 0.0), float(self._once_F.numel()))
        self._once_F.index_fill_(0, frames_N[new_N], self._now)
        self._again_F.index_fill_(0, frames_N[new_N], EMPTY)
        self._num_once += num_new
        self._num_again += pages_N.numel() - num_new
        self._trim_ghosts()

    def _trim_ghosts(self) -> None:
        num_frames = self._once_F.numel()
        self._were_once.trim(num_frames - self._num_once)
        held = self._num_once + self._num_again + len(self._were_once)
        self._were_again.trim(2 * num_frames - held)
