"""What a cache manager is asked for, page by page, without a cache behind it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backends.replay.cache_sim import Access, PageTrace, with_content
from memory_tiers.base import KVGeometry, ReadyPages, waves
from memory_tiers.counters import Counters
from memory_tiers.page_table import PageTable


@dataclass
class PageListener:
    """Stands where a cache manager would, and writes down which pages are asked for."""

    geometry: KVGeometry
    table: PageTable
    num_fast_frames: int
    counters: Counters = field(default_factory=Counters)
    accesses: list[Access] = field(default_factory=list)
    sharing: None = None

    def waves(self, num_pages: int) -> Iterator[tuple[int, int]]:
        """See CacheManager."""
        return waves(num_pages, self.num_fast_frames)

    def write(
        self,
        pages_N: Tensor,
        slots_N: Tensor,
        key_ND: Tensor,
        value_ND: Tensor,
        *,
        shared: bool = True,
    ) -> None:
        """See CacheManager; a page is new when its first slot is written."""
        unique_N = pages_N.unique() if shared else pages_N
        fresh_N = torch.isin(unique_N, pages_N[slots_N == 0])
        self.accesses.append(Access("write", unique_N, fresh_N))

    def fetch(self, wanted_N: Tensor, *, mandatory: bool = False) -> ReadyPages:
        """See CacheManager; there are no frames."""
        self.accesses.append(with_content("read", wanted_N))
        return ReadyPages(wanted_N[:0])

    def prefetch(self, wanted_N: Tensor, keep_N: Tensor) -> None:
        """See CacheManager; not simulated."""
        raise NotImplementedError("a cache without content loads nothing ahead")

    def begin(self, slot: int) -> None:
        """See CacheManager."""

    def end_step(self) -> None:
        """See CacheManager."""

    def release(self, slot: int) -> None:
        """See CacheManager."""
        self.accesses.append(with_content("free", self.table.pages_of_sequence(slot)))

    def page_trace(self) -> PageTrace:
        """What was heard so far."""
        return PageTrace(tuple(self.accesses), self.table.num_pages)
