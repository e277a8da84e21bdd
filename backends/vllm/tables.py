"""Blocks of vLLM as the memory layer sees them: a tier, a frame table, a store of summaries.

vLLM decides which block a sequence has; a block that several share is in the rows of all of them.
Layers have pools of their own under the same block numbers, and are entered one after the other.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from backends.vllm.pages import BlockLayout
from backends.vllm.rows import Member
from memory_tiers.base import FrameTable, KVGeometry, TableView
from memory_tiers.copies import copy_frames
from memory_tiers.counters import Counters
from memory_tiers.huge import huge_empty
from memory_tiers.level import Level
from memory_tiers.manager import CacheManager
from memory_tiers.page_table import PageTable
from memory_tiers.summary_store import Segments, SummaryStore
from memory_tiers.tiers.base import Tier
from sparse_algos.index_data import TensorSpec


class BlockTier(Tier):
    """The caches of all layers, each as a pool of frames; vLLM allocates and frees them."""

    pool_FPSD: Tensor

    def __init__(self, pools: Sequence[Tensor], geometry: KVGeometry) -> None:
        """Take hold of the layers' pools, which are alike; the first layer is entered."""
        super().__init__("hbm", len(pools[0]), geometry)
        self._pools = tuple(pools)
        self.enter(0)

    def enter(self, layer: int) -> None:
        """Be the pool of this layer from now on."""
        self.pool_FPSD = self._pools[layer]

    def read_into(self, frames_N: Tensor, pool_FPSD: Tensor, to_N: Tensor) -> None:
        """See Tier."""
        copy_frames(self.pool_FPSD, frames_N, pool_FPSD, to_N)

    def write_from(self, frames_N: Tensor, pool_FPSD: Tensor, from_N: Tensor) -> None:
        """See Tier."""
        copy_frames(pool_FPSD, from_N, self.pool_FPSD, frames_N)

    def close(self) -> None:
        """See Tier; the memory is vLLM's."""
        self._pools = ()


class BlockFrames(FrameTable):
    """Frames by page id, where a page id is a place in a row of the step's batch."""

    def __init__(self, layout: BlockLayout, table: PageTable) -> None:
        """No row has blocks yet."""
        self.device = table.device
        self._layout = layout
        shape = (table.num_sequences, layout.num_kv_heads, table.pages_per_row)
        self._cells_BKP = torch.zeros(shape, dtype=torch.int32, device=self.device)
        self._cells_C = self._cells_BKP.flatten()
        self.assigned_C = self._cells_C[:0]

    def assign(self, blocks_BW: Tensor) -> None:
        """The first sequences of the batch have these blocks, int32 [B, W]."""
        frames_BKN = self._layout.frames(blocks_BW)
        self._cells_BKP[: len(blocks_BW), :, : frames_BKN.shape[2]] = frames_BKN
        self.assigned_C = self._cells_BKP[: len(blocks_BW)].flatten()

    def begun(self, members: Sequence[Member]) -> Tensor:
        """Frames of pages whose first slot a step writes, to the end of their block, int64 [N]."""
        size, block = self._layout.page_tokens, self._layout.block_tokens
        parts = [self._cells_C[:0]]
        for slot, member in enumerate(members):
            first, stop = -(-member.stored // size), member.stored + member.new
            if first * size < stop:
                end = -(-stop // block) * self._layout.pages_per_block
                parts.append(self._cells_BKP[slot, :, first:end].flatten())
        return torch.cat(parts).long()

    def are_shared(self, members: Sequence[Member], blocks_BW: Tensor) -> bool:
        """Whether two members of a step have a block in common."""
        size = self._layout.block_tokens
        counts = [-(-(one.stored + one.new) // size) for one in members]
        used = [row[:count] for row, count in zip(blocks_BW.tolist(), counts, strict=True)]
        return len({block for row in used for block in row}) < sum(counts)

    def frames(self, pages_N: Tensor) -> Tensor:
        """See FrameTable; every page of a row has one."""
        return self._cells_C[pages_N].long()

    def place(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """Not ours to do."""
        raise AssertionError("vLLM places pages")

    def remove(self, pages_N: Tensor) -> None:
        """Not ours to do."""
        raise AssertionError("vLLM frees pages")

    def view(self) -> TableView:
        """See FrameTable."""
        return TableView(self._cells_C)

    def num_bytes(self) -> dict[str, int]:
        """See FrameTable: all of it is `cells`."""
        return {"cells": self._cells_C.nbytes}


class BlockMemory(CacheManager):
    """Pages by place in the batch, which are those of vLLM's blocks; layers are entered in turn."""

    @abstractmethod
    def assign(self, members: Sequence[Member], blocks_BW: Tensor) -> None:
        """A step over these requests begins, whose blocks are int32 [B, W]."""

    @abstractmethod
    def enter(self, layer: int) -> None:
        """Be the pages of this layer from now on."""


class HeldMemory(BlockMemory):
    """All KV is in vLLM's cache."""

    def __init__(self, table: PageTable, layout: BlockLayout, caches: Sequence[Tensor]) -> None:
        """caches: of the layers, [B, K, N, C]."""
        geometry = table.geometry
        self._tier = BlockTier([layout.pool(one) for one in caches], geometry)
        self._places = BlockFrames(layout, table)
        level = Level(self._tier, self._places, None)
        super().__init__(geometry, table, (level,), None, Counters())

    def assign(self, members: Sequence[Member], blocks_BW: Tensor) -> None:
        """See BlockMemory."""
        self._places.assign(blocks_BW)

    def enter(self, layer: int) -> None:
        """See BlockMemory."""
        self._tier.enter(layer)


class BlockSummaries(SummaryStore):
    """Summaries beside the cache, by block: whoever has the block has them, whoever wrote it."""

    def __init__(
        self,
        spec: Mapping[str, TensorSpec],
        layout: BlockLayout,
        table: PageTable,
        num_blocks: int,
        num_layers: int,
    ) -> None:
        """Room for all partitions of all blocks of the cache, taken at once."""
        super().__init__(spec, 0, 0, table.device)
        self._layout = layout
        self._segment = layout.segment
        self._num_blocks = num_blocks
        self._num_segments = num_blocks * layout.num_kv_heads * layout.segments_per_block
        self._layers = [
            {name: self._pool(one, self._num_segments) for name, one in spec.items()}
            for _ in range(num_layers)
        ]
        width = -(-table.max_tokens // layout.block_tokens) * layout.segments_per_block
        self._directory_BKW = torch.zeros(
            (table.num_sequences, layout.num_kv_heads, width),
            dtype=torch.int64,
            device=table.device,
        )
        self._directory_RW = self._directory_BKW.flatten(0, 1)
        self._shown: tuple[Tensor, int, Tensor] | None = None
        self.enter(0)

    @property
    def peak_bytes(self) -> int:
        """All of it, from the start."""
        pools = sum(one.nbytes for pools in self._layers for one in pools.values())
        return pools + self._directory_RW.nbytes

    def enter(self, layer: int) -> None:
        """Be the summaries of this layer from now on."""
        self._pools = self._layers[layer]

    def pool(self, name: str) -> Tensor:
        """One summary of all blocks on this layer, [num_segments, segment, ...]."""
        return self._pools[name]

    def by_block(self) -> list[Tensor]:
        """All of them as bytes, uint8 [num_blocks, bytes] of a summary and layer: the same memory.

        What is of a block lies together, so that it can be copied with the block.
        """
        pools = [pool for layer in self._layers for pool in layer.values()]
        lying = [one if one.is_contiguous() else one.movedim(1, -1) for one in pools]
        return [one.view(self._num_blocks, -1).view(torch.uint8) for one in lying]

    def assign(self, blocks_BW: Tensor) -> None:
        """The first sequences of the batch have these blocks, int32 [B, W]."""
        segments_BKN = self._layout.segments(blocks_BW)
        self._directory_BKW[: len(blocks_BW), :, : segments_BKN.shape[2]] = segments_BKN
        self._shown = None

    def segments(self, name: str, rows_R: Tensor, num_partitions: int) -> Segments:
        """See SummaryStore; the same rows have the same directory on all layers of a step."""
        width = -(-num_partitions // self._segment)
        if self._shown is None or self._shown[0] is not rows_R or self._shown[1] != width:
            self._shown = (rows_R, width, self._directory_RW[rows_R, :width])
        return Segments(self._pools[name], self._shown[2])

    def reserve(self, *_: Any) -> None:
        """There is room for everything."""

    def release(self, rows_R: Tensor) -> None:
        """A block that is given to another sequence is written anew, and summarised."""

    def _pool(self, one: TensorSpec, count: int) -> Tensor:
        if one.by_entry:
            pool_NEC = huge_empty((count, *one.shape, self._segment), one.dtype, self._device)
            return pool_NEC.movedim(-1, 1)
        return huge_empty((count, self._segment, *one.shape), one.dtype, self._device)
