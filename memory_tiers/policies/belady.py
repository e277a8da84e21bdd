"""Belady (IBM Systems Journal, 1966): the page whose next use is farthest away goes; an oracle."""

from collections.abc import Sequence

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy

NEVER = torch.iinfo(torch.int64).max
EMPTY = -1


class Belady(EvictionPolicy):
    """The bound of every policy: built on the future, hence for replays of traces only.

    Fewest misses where each page of a touch has to come in, and all of them are there at one time:
    between two of its uses a page is either kept, which costs one of the frames that each touch in
    between leaves over, or missed; of too many kept pages the one that stays longest in the way is
    the right one to give up.
    """

    def __init__(self, future: Sequence[Tensor]) -> None:
        """The page ids, int64, distinct in each, that the touches will bring, in their order."""
        self._future = tuple(future)
        device = self._future[0].device if self._future else torch.device("cpu")
        sizes_T = torch.tensor([pages_N.numel() for pages_N in self._future], device=device)
        self._next_uses = _next_uses(self._future, sizes_T) if self._future else ()

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._now = 0
        self._next_F = torch.full((num_frames,), EMPTY, device=device)

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy; raises ValueError where the pages are not those foretold."""
        if self._now == len(self._future) or not torch.equal(self._future[self._now], pages_N):
            raise ValueError(
                f"touch {self._now} is not the one that cache=belady was told of: replay the trace "
                "that it was built on, from its start"
            )
        self._next_F.index_copy_(0, frames_N, self._next_uses[self._now].to(frames_N.device))
        self._now += 1

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._next_F.index_fill_(0, frames_N, EMPTY)

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy."""
        free_F = self._next_F.masked_fill(pinned_F, EMPTY)
        farthest = free_F.topk(min(count, free_F.numel()))
        return farthest.indices[farthest.values > EMPTY]


def _next_uses(future: tuple[Tensor, ...], sizes_T: Tensor) -> tuple[Tensor, ...]:
    """The touch that will next bring each page of each touch, int64, NEVER if none does."""
    time_N = torch.arange(len(future), device=sizes_T.device).repeat_interleave(sizes_T)
    pages_N, order_N = torch.cat(future).sort(stable=True)
    next_N = torch.full_like(time_N, NEVER)
    again_N = pages_N[1:] == pages_N[:-1]
    next_N[order_N[:-1][again_N]] = time_N[order_N[1:][again_N]]
    return next_N.split(sizes_T.tolist())
