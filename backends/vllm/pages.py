"""What lies in a block of vLLM: pages of ours, or what vLLM's own CPU backend puts there.

vLLM hands a layer its cache as [B, K, N, 2 D] (blocks, kv heads, slots, content of a slot), one
piece of memory; what stands in the N * 2 D numbers of one block and head is the business of the
attention backend. Ours fills them with N / S pages [2, S, D], so that the whole cache is a pool of
frames that every kernel here reads in place.
"""

from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.summary_store import SEGMENT


class Unpacked(NamedTuple):
    """Keys and values slot by slot, [B, K, N, D]."""

    key_BKND: Tensor
    value_BKND: Tensor


@dataclass(frozen=True, kw_only=True)
class BlockLayout:
    """Pages and partitions in a block of `block_tokens` slots; partition_size: 1 where none are."""

    block_tokens: int
    page_tokens: int
    partition_size: int
    num_kv_heads: int
    head_dim: int

    def refusals(self) -> list[str]:
        """Why pages or partitions cannot lie in such blocks."""
        return [
            f"a block of vLLM has {self.block_tokens} tokens, which is no multiple of "
            f"{key}={size}; use another backend.engine.block_tokens (vllm serve: --block-size) or "
            f"{key}"
            for key, size in (
                ("partition.page_tokens", self.page_tokens),
                ("the partition of algo.retrieve", self.partition_size),
            )
            if self.block_tokens % size
        ]

    @property
    def pages_per_block(self) -> int:
        """Frames of one block and kv head."""
        return self.block_tokens // self.page_tokens

    @property
    def segment(self) -> int:
        """Partitions whose summaries lie together: they are of one block, and kernels take them."""
        return gcd(self.block_tokens // self.partition_size, SEGMENT)

    @property
    def segments_per_block(self) -> int:
        """Segments of summaries of one block and kv head."""
        return self.block_tokens // self.partition_size // self.segment

    def pool(self, cache_BKNC: Tensor) -> Tensor:
        """The cache of a layer as frames, [F, 2, S, D]: the same memory."""
        shape = (-1, self.num_kv_heads, self.block_tokens, 2 * self.head_dim)
        assert cache_BKNC.is_contiguous() and cache_BKNC.shape[1:] == shape[1:], cache_BKNC.shape
        return cache_BKNC.view(-1, 2, self.page_tokens, self.head_dim)

    def frames(self, blocks_BW: Tensor) -> Tensor:
        """Frames of each kv head's pages in these blocks, in order, [B, K, W * pages_per_block]."""
        return self._spread(blocks_BW, self.pages_per_block)

    def segments(self, blocks_BW: Tensor) -> Tensor:
        """Segments of each kv head's summaries, in order, [B, K, W * segments_per_block]."""
        return self._spread(blocks_BW, self.segments_per_block)

    def unpack(self, cache_BKNC: Tensor) -> Unpacked:
        """Keys and values as this project stores them in blocks."""
        pool_FPSD = self.pool(cache_BKNC)
        shape = (-1, self.num_kv_heads, self.block_tokens, self.head_dim)
        return Unpacked(*(pool_FPSD[:, part].reshape(shape) for part in (0, 1)))

    def _spread(self, blocks_BW: Tensor, count: int) -> Tensor:
        device = blocks_BW.device
        head_K11 = torch.arange(self.num_kv_heads, device=device, dtype=blocks_BW.dtype)
        nth_N = torch.arange(count, device=device, dtype=blocks_BW.dtype)
        row_BKW = blocks_BW.unsqueeze(1) * self.num_kv_heads + head_K11[:, None]
        return (row_BKW.unsqueeze(3) * count + nth_N).flatten(2)


def unpack_vec(cache_BKNC: Tensor) -> Unpacked:
    """Keys and values as vLLM's `vec` kernels for CPUs store them: [D, N], then [N, D]."""
    num_blocks, num_heads, num_slots, content = cache_BKNC.shape
    halves_BKPX = cache_BKNC.reshape(num_blocks, num_heads, 2, -1)
    key_BKDN = halves_BKPX[:, :, 0].unflatten(2, (content // 2, num_slots))
    return Unpacked(key_BKDN.mT, halves_BKPX[:, :, 1].unflatten(2, (num_slots, content // 2)))


def unpack_slots(cache_BKNC: Tensor) -> Unpacked:
    """Keys and values where a slot holds both, as vLLM's kernels for GPUs store them.

    Whether heads or slots come first in memory (HND, NHD) is a matter of strides.
    """
    return Unpacked(*cache_BKNC.chunk(2, dim=3))
