"""S3-FIFO (Yang et al., SOSP 2023): a small queue for newcomers, a main one, and ghosts."""

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.ghosts import Ghosts
from memory_tiers.policies.ranking import EMPTY, empty_ranks, lowest

LAPS = 3


class S3Fifo(EvictionPolicy):
    """Two queues: a frame's place in one of them says when it goes.

    Newcomers join the small queue, ghosts of that queue the main one. While the small queue has
    its share of the frames, it gives up its oldest. In the main queue every read, up to three
    that count, moves a frame one lap back: the paper's hand takes a count off and queues the frame
    again, which is the same as long as the queue keeps its length. Other than in the paper, frames
    move from small to main at their second read, not when they come to the end of the small queue,
    and a frame that is pinned keeps its place and counts. A newcomer whose sequence has left
    becomes a ghost as well: nobody says why a frame is empty.
    """

    def __init__(self, *, small_share: float) -> None:
        """The share of the frames that the small queue may hold, above 0 and below 1."""
        if not 0 < small_share < 1:
            raise ValueError(f"cache.policy.small_share={small_share} must be between 0 and 1")
        self._small_share = small_share

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._now = 0
        self._num_small = self._num_main = 0
        self._max_small = max(1, int(self._small_share * num_frames))
        self._hand = self._main_end = 0
        self._small_F = empty_ranks(num_frames, device)
        self._main_F = empty_ranks(num_frames, device)
        self._read_F = torch.zeros(num_frames, dtype=torch.bool, device=device)
        self._page_F = torch.zeros(num_frames, dtype=torch.int64, device=device)
        self._ghosts = Ghosts(max(1, num_frames - self._max_small), device)

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._now += 1
        place_N = self._main_F.index_select(0, frames_N)
        last_lap = self._hand + LAPS * self._num_main
        self._main_F.index_copy_(0, frames_N, place_N + (place_N < last_lap) * self._num_main)
        outside_N = place_N == EMPTY
        if bool(outside_N.any()):
            self._touch_newcomers(frames_N[outside_N], pages_N[outside_N])

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        place_N = self._small_F[frames_N]
        num_small = int((place_N < EMPTY).sum())
        self._num_small -= num_small
        self._ghosts.add(self._page_F[frames_N[place_N.argsort()][:num_small]])
        self._small_F.index_fill_(0, frames_N, EMPTY)
        gone_N = self._main_F[frames_N]
        gone_N = gone_N[gone_N < EMPTY]
        self._main_F.index_fill_(0, frames_N, EMPTY)
        if gone_N.numel():
            self._num_main -= gone_N.numel()
            # The hand stands behind the last victim, but never beyond a frame that is still there.
            self._hand = min(int(gone_N.max()) + 1, int(self._main_F.min()))

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy."""
        surplus = min(count, max(0, self._num_small - self._max_small + 1))
        small_N = lowest(self._small_F, surplus, pinned_F)
        main_N = lowest(self._main_F, count - small_N.numel(), pinned_F)
        short = count - small_N.numel() - main_N.numel()
        if short:
            small_N = lowest(self._small_F, small_N.numel() + short, pinned_F)
        return torch.cat((small_N, main_N))

    def _touch_newcomers(self, frames_N: Tensor, pages_N: Tensor) -> None:
        came_N = self._small_F[frames_N] == EMPTY
        main_N = self._read_F[frames_N] & ~came_N
        promoted = int(main_N.sum())
        main_N[came_N] = self._ghosts.take(pages_N[came_N])
        small_N = came_N & ~main_N
        self._page_F.index_copy_(0, frames_N, pages_N)
        self._read_F.index_copy_(0, frames_N, ~came_N)
        self._small_F.index_fill_(0, frames_N[small_N], self._now)
        self._num_small += int(small_N.sum()) - promoted
        self._enter_main(frames_N[main_N])

    def _enter_main(self, frames_N: Tensor) -> None:
        self._small_F.index_fill_(0, frames_N, EMPTY)
        start = max(self._main_end, self._hand + self._num_main)
        self._main_end = start + frames_N.numel()
        self._main_F[frames_N] = torch.arange(start, self._main_end, device=frames_N.device)
        self._num_main += frames_N.numel()
