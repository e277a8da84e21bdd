"""Bucketed LRU (SPIN, arXiv:2604.26837, section 5): recency in a few buckets, no sorting."""

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy

EMPTY = 0


class BucketedLru(EvictionPolicy):
    """LRU over `buckets` classes of recency, one uint8 per frame; older classes have lower numbers.

    Frames touched together share a bucket, and the next one opens once frames / buckets touches
    went into it. When the last is full, frames are dealt again, in order, to the lower half, the
    same number to each bucket. SPIN's numbers wrap around instead and what is older than all of
    them becomes one class: with one touch per layer that class would hold almost everything.
    Order is kept but for frames that come to share a bucket: with at least twice as many buckets as
    frames, or no more touches than buckets, it is LRU.
    """

    def __init__(self, *, buckets: int) -> None:
        """The number of classes, 2 to 255."""
        if not 2 <= buckets <= 255:
            raise ValueError(f"cache.policy.buckets={buckets} must be between 2 and 255")
        self._buckets = buckets

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._bucket_F = torch.zeros(num_frames, dtype=torch.uint8, device=device)
        self._width = num_frames // self._buckets
        self._newest = 1
        self._newest_touches = 0

    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """See EvictionPolicy."""
        if self._newest_touches and self._newest_touches >= self._width:
            self._open_bucket()
        self._bucket_F.index_fill_(0, frames_N, self._newest)
        self._newest_touches += frames_N.numel()

    def forget(self, frames_N: Tensor) -> None:
        """See EvictionPolicy."""
        self._bucket_F.index_fill_(0, frames_N, EMPTY)

    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """See EvictionPolicy: the oldest buckets whole, and a part of one more."""
        bucket_F = self._bucket_F.masked_fill(pinned_F, EMPTY)
        up_to_B = self._sizes(bucket_F).cumsum(0)
        last = int((up_to_B < count).sum()) + 1
        older_V = _members((bucket_F < last) & (bucket_F > EMPTY))
        in_order_V = older_V[bucket_F[older_V].argsort()]
        return torch.cat((in_order_V, _members(bucket_F == last)))[:count]

    def _sizes(self, bucket_F: Tensor) -> Tensor:
        """Frames in buckets 1 .. newest, int64 [B]."""
        return torch.bincount(bucket_F, minlength=self._newest + 1)[1:]

    def _open_bucket(self) -> None:
        if self._newest == self._buckets:
            self._deal_again()
        self._newest += 1
        self._newest_touches = 0

    def _deal_again(self) -> None:
        up_to_B = self._sizes(self._bucket_F).cumsum(0)
        half = self._buckets // 2
        share = -(-max(int(up_to_B[-1]), 1) // half)
        dealt_B = (up_to_B + share - 1) // share
        number_B = torch.cat((dealt_B.new_zeros(1), dealt_B)).to(torch.uint8)
        self._bucket_F = number_B[self._bucket_F.int()]
        self._newest = half


def _members(chosen_F: Tensor) -> Tensor:
    return chosen_F.nonzero().squeeze(1)
