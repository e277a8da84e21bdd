"""ARC (Megiddo and Modha, FAST 2003): recency against frequency, tuned by its mistakes."""

import math

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.ghosts import Ghosts
from memory_tiers.policies.ranking import EMPTY, empty_ranks, lowest

NONE, ONCE, AGAIN = 0, 1, 2


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
        self._used_F = empty_ranks(num_frames, device)
        self._list_F = torch.zeros(num_frames, dtype=torch.uint8, device=device)
        self._page_F = torch.zeros(num_frames, dtype=torch.int64, device=device)
        self._ghosts = {held: Ghosts(num_frames, device) for held in (ONCE, AGAIN)}

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._now += 1
        came_N = self._list_F.index_select(0, frames_N) == NONE
        self._list_F.index_fill_(0, frames_N, AGAIN)
        self._used_F.index_fill_(0, frames_N, self._now)
        if bool(came_N.any()):
            self._admit(frames_N[came_N], pages_N[came_N])

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        frames_N = frames_N[self._used_F[frames_N].argsort()]
        list_N, pages_N = self._list_F[frames_N], self._page_F[frames_N]
        for held, ghosts in self._ghosts.items():
            ghosts.add(pages_N[list_N == held])
        self._list_F.index_fill_(0, frames_N, NONE)
        self._used_F.index_fill_(0, frames_N, EMPTY)

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy."""
        held = self._list_F.masked_fill(pinned_F, NONE)
        not_once_F, not_again_F = held != ONCE, held != AGAIN
        free_once, free_again = _falses(not_once_F), _falses(not_again_F)
        surplus = max(0, math.ceil(self._size(ONCE) - self._target))
        take_once = min(max(surplus, count - free_again), free_once, count)
        return torch.cat(
            (
                lowest(self._used_F, take_once, not_once_F),
                lowest(self._used_F, count - take_once, not_again_F),
            )
        )

    def _admit(self, frames_N: Tensor, pages_N: Tensor) -> None:
        self._page_F.index_copy_(0, frames_N, pages_N)
        once, again = self._ghosts[ONCE], self._ghosts[AGAIN]
        lengths = max(len(once), 1), max(len(again), 1)
        was_once_N, was_again_N = once.take(pages_N), again.take(pages_N)
        up = int(was_once_N.sum()) * max(1.0, lengths[1] / lengths[0])
        down = int(was_again_N.sum()) * max(1.0, lengths[0] / lengths[1])
        num_frames = self._used_F.numel()
        self._target = min(max(self._target + up - down, 0.0), float(num_frames))
        self._list_F.index_fill_(0, frames_N[~(was_once_N | was_again_N)], ONCE)
        size_once, size_again = self._size(ONCE), self._size(AGAIN)
        once.trim(num_frames - size_once)
        again.trim(2 * num_frames - size_once - size_again - len(once))

    def _size(self, held: int) -> int:
        return int(torch.count_nonzero(self._list_F == held))


def _falses(chosen_F: Tensor) -> int:
    return chosen_F.numel() - int(torch.count_nonzero(chosen_F))
