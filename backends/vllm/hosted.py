"""KV in levels of this project, where a slot of vLLM's cache holds no more than a digest.

vLLM's blocks name pages, on whichever level these are; a step asks for them by place in its batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.vllm.pages import BlockLayout
from backends.vllm.rows import Limits, Member
from backends.vllm.tables import BlockFrames, BlockMemory
from memory_tiers.base import FrameTable, KVGeometry, ReadyPages, TableView
from memory_tiers.counters import Counters
from memory_tiers.level import Level
from memory_tiers.page_table import PageTable
from memory_tiers.sharing import Sharing


@dataclass(frozen=True, kw_only=True)
class Hosting:
    """Who holds KV outside of vLLM.

    refusals: why that cannot be, for so many tokens of all blocks; levels: makes them, fastest
    first, for a table of all pages of all blocks; window: see Sharing.
    """

    refusals: Callable[[KVGeometry, Limits, int], list[str]]
    levels: Callable[[PageTable], tuple[Level, ...]]
    window: int

    def memory(
        self, table: PageTable, layout: BlockLayout, caches: Sequence[Tensor]
    ) -> "HostedMemory":
        """Empty levels for the pages of as many blocks as vLLM's caches have, [B, K, N, 1]."""
        shapes = {tuple(one.shape[1:]) for one in caches}
        assert shapes == {(layout.num_kv_heads, layout.block_tokens, 1)}, shapes
        # Ids of the pages of all blocks, as if one sequence had them all.
        blocks = PageTable(table.geometry, 1, len(caches[0]) * layout.block_tokens)
        levels, places = self.levels(blocks), BlockFrames(layout, table)
        return HostedMemory(table, blocks, places, levels, Sharing(blocks, None, self.window))


class SeenFrames(FrameTable):
    """Frames by page of a block; a kernel sees them by place in the batch, on one layer."""

    def __init__(self, inner: FrameTable, places: BlockFrames) -> None:
        """inner: holds them; places: pages of blocks by place in the batch."""
        self.device = inner.device
        self._inner = inner
        self._places = places
        self.first_page = 0

    def frames(self, pages_N: Tensor) -> Tensor:
        """See FrameTable."""
        return self._inner.frames(pages_N)

    def place(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """See FrameTable."""
        self._inner.place(pages_N, frames_N)

    def remove(self, pages_N: Tensor) -> None:
        """See FrameTable."""
        self._inner.remove(pages_N)

    def view(self) -> TableView:
        """Of the rows that the step has; the pages of a row are where a kernel looks for them."""
        pages_C = self._places.assigned_C.long() + self.first_page
        return TableView(self._inner.frames(pages_C).int())

    def num_bytes(self) -> dict[str, int]:
        """See FrameTable."""
        return self._inner.num_bytes()


class HostedMemory(BlockMemory):
    """Pages by block over levels of ours, asked for by place in the step's batch.

    What another request wrote to a block stays until it is written anew: it may be a prefix.
    """

    def __init__(
        self,
        table: PageTable,
        blocks: PageTable,
        places: BlockFrames,
        levels: tuple[Level, ...],
        sharing: Sharing,
    ) -> None:
        """table: of places in the batch; blocks: of the pages of all blocks, which levels hold."""
        self._seen = SeenFrames(levels[0].table, places)
        levels[0].table = self._seen
        super().__init__(table.geometry, table, levels, sharing, Counters())
        self._places = places
        self._layer_pages = blocks.num_pages // table.geometry.num_layers
        self._are_shared = False

    def enter(self, layer: int) -> None:
        """See BlockMemory."""
        self._seen.first_page = self.first_page(layer)

    def assign(self, members: Sequence[Member], blocks_BW: Tensor) -> None:
        """See BlockMemory; pages that a request begins are empty, whatever was in them."""
        self._places.assign(blocks_BW)
        self._are_shared = len(members) > 1 and self._places.are_shared(members, blocks_BW)
        begun_N = self._places.begun(members)
        if begun_N.numel():
            layers = torch.arange(self.geometry.num_layers, device=begun_N.device)
            self.free((layers.unsqueeze(1) * self._layer_pages + begun_N).flatten())

    def first_page(self, layer: int) -> int:
        """Id of the first page of block 0 on a layer."""
        return layer * self._layer_pages

    def frames(self, pages_N: Tensor) -> Tensor:
        """See CacheManager."""
        return super().frames(self._of_blocks(pages_N))

    def fetch(self, wanted_N: Tensor, *, mandatory: bool = False) -> ReadyPages:
        """See CacheManager; a page that several requests have is fetched once."""
        pages_N = self._of_blocks(wanted_N)
        if not self._are_shared:
            return super().fetch(pages_N, mandatory=mandatory)
        once_N, at_N = pages_N.unique(return_inverse=True)
        return ReadyPages(super().fetch(once_N, mandatory=mandatory).frames_N[at_N])

    def hit(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """See CacheManager."""
        pages_N = self._of_blocks(pages_N)
        if self._are_shared:
            pages_N = pages_N.unique()
            frames_N = self.fast.frames(pages_N)
        super().hit(pages_N, frames_N)

    def write(
        self,
        pages_N: Tensor,
        slots_N: Tensor,
        key_ND: Tensor,
        value_ND: Tensor,
        *,
        shared: bool = True,
    ) -> None:
        """See CacheManager; blocks that requests share are full, and never written."""
        super().write(self._of_blocks(pages_N), slots_N, key_ND, value_ND, shared=shared)

    def _of_blocks(self, pages_N: Tensor) -> Tensor:
        return self._places.frames(pages_N) + self._seen.first_page
