"""Caches without content: which pages a policy would have kept, on page ids alone.

The calls to the policy, and the frames it is told of, are those of the cache manager, so that the
hits are the same to the page; nothing is copied, which makes whole families of sizes affordable.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from memory_tiers.base import (
    NOWHERE,
    EvictionPolicy,
    KVGeometry,
    OutOfFramesError,
    ReadyPages,
    waves,
)
from memory_tiers.counters import Counters
from memory_tiers.level import Level
from memory_tiers.page_table import PageTable
from memory_tiers.tables.flat import Flat
from memory_tiers.tiers.arena import Arena


@dataclass(frozen=True)
class Access:
    """Pages that are touched together, or freed.

    pages_N: int64 [N], each named once; fresh_N: bool [N], pages that have no content yet.
    """

    kind: Literal["write", "read", "free"]
    pages_N: Tensor
    fresh_N: Tensor


def with_content(kind: Literal["read", "free"], pages_N: Tensor) -> Access:
    """An access to pages none of which is new."""
    return Access(kind, pages_N, torch.zeros_like(pages_N, dtype=torch.bool))


@dataclass(frozen=True)
class PageTrace:
    """Accesses in order, over ids below num_pages."""

    accesses: Sequence[Access]
    num_pages: int

    def touched(self) -> list[Tensor]:
        """Page ids of every touch in order: the future, for a policy that may know it."""
        return [one.pages_N for one in self.accesses if one.kind != "free"]


@dataclass(frozen=True, kw_only=True)
class CacheCounts:
    """Pages asked for by reads and found, and pages that reads and writes had to bring up."""

    pages_wanted: int
    pages_hit: int
    pages_loaded: int
    pages_evicted: int


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


def simulate(trace: PageTrace, policy: EvictionPolicy, num_frames: int) -> CacheCounts:
    """Run a policy over a page trace in a fast tier of `num_frames` frames, empty at first.

    Raises OutOfFramesError when one access needs more frames than there are.
    """
    cache = _Cache(policy, num_frames, trace.num_pages)
    for access in trace.accesses:
        if access.kind == "free":
            cache.free(access.pages_N)
        else:
            cache.touch(access)
    return CacheCounts(
        pages_wanted=cache.wanted,
        pages_hit=cache.hit,
        pages_loaded=cache.loaded,
        pages_evicted=cache.evicted,
    )


class _Cache:
    """The fast level of a cache manager, in frames of no bytes."""

    def __init__(self, policy: EvictionPolicy, num_frames: int, num_pages: int) -> None:
        device = torch.device("cpu")
        nothing = KVGeometry(
            num_layers=1,
            num_kv_heads=1,
            head_dim=0,
            page_tokens=1,
            dtype=torch.float32,
            device=device,
        )
        arena = Arena("simulated", num_frames, nothing, device)
        self._level = Level(arena, Flat(num_pages, device), policy)
        self.wanted = self.hit = self.loaded = self.evicted = 0

    def touch(self, access: Access) -> None:
        """Make pages resident."""
        level, pages_N = self._level, access.pages_N
        frame_N = level.frames(pages_N)
        absent_N = frame_N == NOWHERE
        loads_N = pages_N[absent_N & ~access.fresh_N]
        if bool(absent_N.any()):
            self._make_room(int(absent_N.sum()) - level.num_free, frame_N)
            # Apart, as the manager does: a policy sees other frames otherwise.
            for new_N in (loads_N, pages_N[absent_N & access.fresh_N]):
                level.place(new_N)
            frame_N = level.frames(pages_N)
        level.touch(frame_N, pages_N)
        self.loaded += loads_N.numel()
        if access.kind == "read":
            self.wanted += pages_N.numel()
            self.hit += pages_N.numel() - loads_N.numel()

    def free(self, pages_N: Tensor) -> None:
        """Forget pages."""
        self._level.drop(pages_N[self._level.frames(pages_N) != NOWHERE])

    def _make_room(self, short: int, pinned_N: Tensor) -> None:
        victims_N = self._level.victims(short, pinned_N)
        if victims_N.numel() < short:
            raise OutOfFramesError(
                f"{self._level.tier.num_frames} frames are {short - victims_N.numel()} too few for "
                "one access; give more"
            )
        self._level.drop(victims_N)
        self.evicted += victims_N.numel()
