"""Bucketed LRU (SPIN, arXiv:2604.26837, section 5): recency in a few buckets, no sorting."""

import torch
from torch import Tensor

from memory_tiers.base import EvictionPolicy

EMPTY = 255


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
        if not 2 <= buckets <= EMPTY:
            raise ValueError(f"cache.policy.buckets={buckets} must be between 2 and {EMPTY}")
        self._buckets = buckets

    def start(self, num_frames: int, device: torch.device) -> None:
        """See EvictionPolicy."""
        self._bucket_F = torch.full((num_frames,), EMPTY, dtype=torch.uint8, device=device)
        self._width = num_frames // self._buckets
        self._newest = 0
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
        bucket_F = self._bucket_F | -pinned_F.view(torch.uint8)
        last = int((self._up_to(bucket_F) < count).sum())
        frames_V = (bucket_F <= min(last, EMPTY - 1)).nonzero().squeeze(1)
        bucket_V = bucket_F[frames_V]
        older_V = bucket_V < last
        in_order_V = frames_V[older_V][bucket_V[older_V].argsort()]
        return torch.cat((in_order_V, frames_V[~older_V]))[:count]

    def _up_to(self, bucket_F: Tensor) -> Tensor:
        """Frames in bucket 0 .. b for each bucket b, int64 [B]."""
        return torch.bincount(bucket_F, minlength=EMPTY)[: self._buckets].cumsum(0)

    def _open_bucket(self) -> None:
        self._newest += 1
        self._newest_touches = 0
        if self._newest == self._buckets:
            self._deal_again()

    def _deal_again(self) -> None:
        """Number the frames again, in order, from 0 up to half of the buckets."""
        up_to_B = self._up_to(self._bucket_F)
        half = self._buckets // 2
        share = -(-max(int(up_to_B[-1]), 1) // half)
        number_B = up_to_B.new_full((EMPTY + 1,), EMPTY)
        number_B[: self._buckets] = (up_to_B - 1).clamp(min=0) // share
        self._bucket_F = number_B.to(torch.uint8)[self._bucket_F.int()]
        self._newest = half
