"""Caches without content: which pages a policy would have kept, on page ids alone.

The calls to the policy, and the frames it is told of, are those of the cache manager, so that the
hits are the same to the page; nothing is copied, which makes whole families of sizes affordable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from memory_tiers.base import (
    NOWHERE,
    EvictionPolicy,
    KVGeometry,
    OutOfFramesError,
)
from memory_tiers.level import Level
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
