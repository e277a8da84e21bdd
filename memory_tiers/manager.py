"""The cache manager: which pages are in the fast tier, decided before anything moves."""

from collections.abc import Iterator

import torch
from torch import Tensor

from memory_tiers.base import (
    NOWHERE,
    EvictionPolicy,
    FetchPlan,
    KVGeometry,
    OutOfFramesError,
    ReadyPages,
    Rows,
    prefix_bits,
)
from memory_tiers.copies import copy_pages
from memory_tiers.counters import Counters
from memory_tiers.page_table import PageTable
from memory_tiers.tiers.arena import Arena


class CacheManager:
    """Pages over tiers, fastest first. Only the first tier is attended to.

    With a tier below it, the fast one is a cache: a page that leaves it is written back when it
    changed, and keeps its lower frame when it comes up again.
    """

    def __init__(
        self,
        geometry: KVGeometry,
        table: PageTable,
        tiers: tuple[Arena, ...],
        policy: EvictionPolicy,
        counters: Counters,
    ) -> None:
        """Take hold of empty tiers."""
        self.geometry = geometry
        self.table = table
        self.tiers = tiers
        self.counters = counters
        self._policy = policy
        self._fast = tiers[0]
        device = geometry.device
        self._page_of_F = torch.full((self._fast.num_frames,), NOWHERE, device=device)
        self._none_F = torch.zeros(self._fast.num_frames, dtype=torch.bool, device=device)
        policy.start(self._fast.num_frames, device)

    @property
    def pool_FPSD(self) -> Tensor:
        """The frames that attention reads, [F, 2, S, D]."""
        return self._fast.pool_FPSD

    @property
    def free_pages(self) -> int:
        """Pages of new sequences that the last tier, which holds every page, has room for."""
        return self.tiers[-1].num_free

    def plan(self, wanted_N: Tensor) -> FetchPlan:
        """What it takes to have these pages in the fast tier, each named once; moves nothing.

        Raises OutOfFramesError when the tier cannot hold them all at one time.
        """
        frame_N = self.table.frame_TP[0, wanted_N]
        absent_N = wanted_N[frame_N == NOWHERE]
        none = absent_N[:0]
        if absent_N.numel() == 0:
            return FetchPlan(wanted_N, none, none, none, none)
        below_N = self.table.frame_TP[1:, absent_N].amax(dim=0) if len(self.tiers) > 1 else None
        loads_N = absent_N[below_N > NOWHERE] if below_N is not None else none
        fresh_N = absent_N[below_N == NOWHERE] if below_N is not None else absent_N
        victims_N = self._victims(absent_N.numel() - self._fast.num_free, wanted_N, frame_N)
        return FetchPlan(
            wanted_N, loads_N, fresh_N, victims_N, victims_N[self.table.dirty_P[victims_N]]
        )

    def execute(self, plan: FetchPlan) -> ReadyPages:
        """Write back, evict and load as planned."""
        table = self.table
        if plan.victims_N.numel():
            self._write_back(plan.dirty_N)
            self._drop_from_fast(plan.victims_N)
            self.counters.current.pages_evicted += plan.victims_N.numel()
        if plan.loads_N.numel() + plan.fresh_N.numel():
            self._place(torch.cat((plan.loads_N, plan.fresh_N)))
            self._load(plan.loads_N)
        frames_N = table.frame_TP[0, plan.wanted_N]
        if len(self.tiers) > 1:
            self._policy.touch(frames_N, plan.wanted_N)
        return ReadyPages(frames_N)

    def fetch(self, wanted_N: Tensor) -> ReadyPages:
        """Plan and execute a read, and count its hits."""
        plan = self.plan(wanted_N)
        count = self.counters.current
        count.pages_wanted += wanted_N.numel()
        count.pages_hit += wanted_N.numel() - plan.loads_N.numel()
        return self.execute(plan)

    def write(
        self,
        pages_N: Tensor,
        slots_N: Tensor,
        key_ND: Tensor,
        value_ND: Tensor,
        *,
        shared: bool = True,
    ) -> None:
        """Store keys and values in slots of pages, which become resident first.

        shared: whether several of the tokens may go to one page.
        """
        self.execute(self.plan(pages_N.unique() if shared else pages_N))
        frames_N = self.table.frame_TP[0, pages_N]
        self.pool_FPSD[frames_N, 0, slots_N] = key_ND
        self.pool_FPSD[frames_N, 1, slots_N] = value_ND
        self.table.dirty_P[pages_N] = True

    @property
    def num_fast_frames(self) -> int:
        """Pages that the fast tier holds."""
        return self._fast.num_frames

    def waves(self, num_pages: int) -> Iterator[tuple[int, int]]:
        """Cut a selection into parts, [start, stop), that the fast tier holds in turn."""
        for start in range(0, num_pages, self.num_fast_frames):
            yield start, min(start + self.num_fast_frames, num_pages)

    def drop_slots(self, rows: Rows, keep_RT: Tensor) -> None:
        """Evict for good what is not kept; a page left without a token frees its frames.

        keep_RT: bool [R, T], T a whole number of pages that covers every stored token.
        """
        size = self.geometry.page_tokens
        start_P = torch.arange(0, keep_RT.shape[1], size, device=keep_RT.device)
        bit_S = torch.ones_like(start_P[:1]) << torch.arange(size, device=keep_RT.device)
        drop_RP = ((~keep_RT).unflatten(1, (-1, size)) * bit_S).sum(dim=2)
        pages_RP = rows.first_page_R.unsqueeze(1) + start_P // size
        dead_RP = self.table.bury(pages_RP, drop_RP)
        stored_RP = (rows.num_tokens_R.unsqueeze(1) - start_P).clamp(0, size)
        gone_RP = (prefix_bits(size, keep_RT.device)[stored_RP] & ~dead_RP) == 0
        self._free(pages_RP[gone_RP])

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        pages_N = self.table.pages_of_sequence(slot)
        self._free(pages_N)
        if self.table.dead_P is not None:
            self.table.dead_P[pages_N] = 0

    def free(self, pages_N: Tensor) -> None:
        """Forget pages whose tokens are elsewhere."""
        self._free(pages_N)

    def _free(self, pages_N: Tensor) -> None:
        """Give back every frame of these pages."""
        self._drop_from_fast(pages_N[self.table.frame_TP[0, pages_N] != NOWHERE])
        for level, tier in enumerate(self.tiers[1:], start=1):
            frame_N = self.table.frame_TP[level, pages_N]
            tier.free(frame_N[frame_N != NOWHERE])
            self.table.frame_TP[level, pages_N] = NOWHERE
        self.table.dirty_P[pages_N] = False

    def _victims(self, short: int, wanted_N: Tensor, frame_N: Tensor) -> Tensor:
        if short <= 0:
            return wanted_N[:0]
        if len(self.tiers) > 1:
            pinned_F = self._none_F.index_fill(0, frame_N[frame_N != NOWHERE], True)
            frames_V = self._policy.victims(short, pinned_F)
        else:
            frames_V = wanted_N[:0]
        if frames_V.numel() < short:
            self._refuse(wanted_N.numel())
        return self._page_of_F[frames_V]

    def _refuse(self, needed: int) -> None:
        name, have = self._fast.name, self._fast.num_frames
        size = needed * self._fast.frame_bytes
        raise OutOfFramesError(
            f"tier.{name}.size holds {have} pages, one step of one layer needs {needed}; raise "
            f"tier.{name}.size to {size} bytes, or lower algo.retrieve.budget_tokens, "
            "backend.max_batch or backend.chunk_tokens"
        )

    def _write_back(self, pages_N: Tensor) -> None:
        table, lower = self.table, self.tiers[1]
        homeless_N = pages_N[table.frame_TP[1, pages_N] == NOWHERE]
        if homeless_N.numel() > lower.num_free:
            raise OutOfFramesError(
                f"tier.{lower.name}.size is full: {lower.num_frames} pages; raise it, or lower "
                "backend.max_batch"
            )
        table.frame_TP[1, homeless_N] = lower.allocate(homeless_N.numel())
        copy_pages(
            self._fast, table.frame_TP[0, pages_N], lower, table.frame_TP[1, pages_N], self.counters
        )
        table.dirty_P[pages_N] = False

    def _drop_from_fast(self, pages_N: Tensor) -> None:
        frame_N = self.table.frame_TP[0, pages_N]
        self.table.frame_TP[0, pages_N] = NOWHERE
        self._page_of_F[frame_N] = NOWHERE
        self._policy.forget(frame_N)
        self._fast.free(frame_N)

    def _place(self, pages_N: Tensor) -> None:
        frame_N = self._fast.allocate(pages_N.numel())
        self.table.frame_TP[0, pages_N] = frame_N
        self._page_of_F[frame_N] = pages_N

    def _load(self, pages_N: Tensor) -> None:
        if pages_N.numel() == 0:
            return
        table = self.table
        copy_pages(
            self.tiers[1],
            table.frame_TP[1, pages_N],
            self._fast,
            table.frame_TP[0, pages_N],
            self.counters,
        )
