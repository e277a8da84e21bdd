"""The cache manager: which pages are in the fast tier, decided before anything moves."""

from collections.abc import Iterator

import torch
from torch import Tensor

from memory_tiers.base import (
    NOWHERE,
    FetchPlan,
    KVGeometry,
    OutOfFramesError,
    ReadyPages,
    Rows,
    prefix_bits,
    waves,
)
from memory_tiers.counters import Counters
from memory_tiers.hierarchy import Hierarchy
from memory_tiers.level import Level, Move
from memory_tiers.page_table import PageTable
from memory_tiers.rebuilder import KeyRebuilder
from memory_tiers.sharing import Sharing
from memory_tiers.tiers.base import Tier


class CacheManager:
    """Pages over levels, fastest first. Only the first level is attended to.

    With a level below it, the fast one is a cache: the pages of a step are *mandatory*, the others
    in it are *buffering*, kept for steps to come. A page that leaves is written back when it
    changed, and keeps its lower frame when it comes up again.
    """

    def __init__(
        self,
        geometry: KVGeometry,
        table: PageTable,
        levels: tuple[Level, ...],
        sharing: Sharing | None,
        counters: Counters,
    ) -> None:
        """Take hold of empty levels; sharing: how sequences share the fast one, None if it is all.

        Sharing is there exactly when a level is below.
        """
        self.geometry = geometry
        self.table = table
        self.levels = levels
        self.sharing = sharing if len(levels) > 1 else None
        self.fast = levels[0]
        self._hierarchy = Hierarchy(levels, counters)
        self._mandatory = 0
        self.peak_tables: dict[str, dict[str, int]] = {}

    @property
    def counters(self) -> Counters:
        """What happened since the last reset."""
        return self._hierarchy.mover.counters

    @counters.setter
    def counters(self, counters: Counters) -> None:
        self._hierarchy.mover.counters = counters

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers of the levels."""
        return tuple(level.tier for level in self.levels)

    @property
    def pool_FPSD(self) -> Tensor:
        """The frames that attention reads, [F, 2, S, D]."""
        pool_FPSD = self.fast.tier.pool_FPSD
        assert pool_FPSD is not None, f"{self.fast.name} cannot be attended to"
        return pool_FPSD

    @property
    def num_fast_frames(self) -> int:
        """Pages that the fast tier holds."""
        return self.fast.tier.num_frames

    @property
    def free_pages(self) -> int:
        """Pages of new sequences that the last tier, which holds every page, has room for."""
        return self.levels[-1].num_free

    def frames(self, pages_N: Tensor) -> Tensor:
        """Fast frame of each page, NOWHERE where it is not there."""
        return self.fast.frames(pages_N)

    def plan(self, wanted_N: Tensor) -> FetchPlan:
        """What it takes to have these pages in the fast tier, each named once; moves nothing.

        Raises OutOfFramesError when the tier cannot hold them all at one time.
        """
        frame_N = self.fast.frames(wanted_N)
        absent_N = wanted_N[frame_N == NOWHERE]
        none_N = absent_N[:0]
        if absent_N.numel() == 0:
            return FetchPlan(wanted_N, frame_N, none_N, none_N, none_N, none_N)
        stored_N = self._hierarchy.stored_below(absent_N)
        victims_N = self._victims(absent_N, wanted_N, frame_N)
        return FetchPlan(
            wanted_N,
            frame_N,
            absent_N[stored_N],
            absent_N[~stored_N],
            victims_N,
            self.fast.changed(victims_N),
        )

    def execute(self, plan: FetchPlan) -> ReadyPages:
        """Write back, evict and load as planned."""
        self._hierarchy.mover.settle()
        if plan.loads_N.numel() + plan.fresh_N.numel() + plan.victims_N.numel():
            self._hierarchy.mover.run(self._make_so(plan))
        frames_N = self._frames_after(plan)
        if len(self.levels) > 1:
            self.fast.touch(frames_N, plan.wanted_N)
        return ReadyPages(frames_N)

    def _frames_after(self, plan: FetchPlan) -> Tensor:
        """Frames of the wanted pages, looked up again only where they came to be."""
        arrived = plan.loads_N.numel() + plan.fresh_N.numel()
        if arrived == 0:
            return plan.frames_N
        at_N = (plan.frames_N == NOWHERE).nonzero().squeeze(1)
        found_N = self.fast.frames(plan.wanted_N[at_N])
        return plan.frames_N.index_copy(0, at_N, found_N)

    def fetch(self, wanted_N: Tensor, *, mandatory: bool = False) -> ReadyPages:
        """Plan and execute a read, and count its hits; mandatory: pages of a decode step."""
        plan = self.plan(wanted_N)
        self._count(wanted_N, wanted_N.numel() - plan.loads_N.numel(), mandatory=mandatory)
        return self.execute(plan)

    def bring(self, wanted_N: Tensor) -> ReadyPages:
        """Have pages in the fast tier that attention did not ask for: no hit, and no miss."""
        return self.execute(self.plan(wanted_N))

    def hit(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """A decode step read these pages, all of which were in their fast frames."""
        self._hierarchy.mover.settle()
        self._count(pages_N, pages_N.numel(), mandatory=True)
        if len(self.levels) > 1:
            self.fast.touch(frames_N.long(), pages_N)

    def prefetch(self, wanted_N: Tensor, keep_N: Tensor) -> None:
        """Start to load those of these pages that are below, while frames `keep_N` are read."""
        self._hierarchy.mover.settle()
        frame_N = self.fast.frames(wanted_N)
        absent_N = wanted_N[frame_N == NOWHERE]
        absent_N = absent_N[self._hierarchy.stored_below(absent_N)]
        if absent_N.numel() == 0:
            return
        pinned_N = torch.cat((keep_N, frame_N))
        victims_N = self.fast.victims(absent_N.numel() - self.fast.num_free, pinned_N)
        loads_N = absent_N[: self.fast.num_free + victims_N.numel()]
        changed_N = self.fast.changed(victims_N)
        plan = FetchPlan(wanted_N, frame_N, loads_N, absent_N[:0], victims_N, changed_N)
        self.counters.current.pages_prefetched += loads_N.numel()
        moves = self._make_so(plan)
        self.fast.touch(self.fast.frames(loads_N), loads_N)
        self._hierarchy.mover.start(moves)

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
        frames_N = self.execute(self.plan(pages_N.unique() if shared else pages_N)).frames_N
        if shared:
            frames_N = self.fast.frames(pages_N)
        self.pool_FPSD[frames_N, 0, slots_N] = key_ND
        self.pool_FPSD[frames_N, 1, slots_N] = value_ND
        self.fast.changed_F[frames_N] = True

    def waves(self, num_pages: int) -> Iterator[tuple[int, int]]:
        """Cut a selection into parts, [start, stop), that the fast tier holds in turn."""
        return waves(num_pages, self.num_fast_frames)

    def drop_slots(self, rows: Rows, keep_RT: Tensor) -> None:
        """Evict for good what is not kept; a page left without a token frees its frames.

        keep_RT: bool [R, T], T a whole number of pages that covers every slot in use.
        """
        size = self.geometry.page_tokens
        start_P = torch.arange(0, keep_RT.shape[1], size, device=keep_RT.device)
        bit_S = torch.ones_like(start_P[:1]) << torch.arange(size, device=keep_RT.device)
        drop_RP = ((~keep_RT).unflatten(1, (-1, size)) * bit_S).sum(dim=2)
        pages_RP = rows.first_page_R.unsqueeze(1) + start_P // size
        stored_RP = (rows.num_tokens_R.unsqueeze(1) - start_P).clamp(0, size)
        stored_RP = prefix_bits(size, keep_RT.device)[stored_RP]
        # What comes is not dropped before it is there.
        dead_RP = self.table.bury(pages_RP, drop_RP & stored_RP)
        self._hierarchy.free(pages_RP[(stored_RP & ~dead_RP) == 0])

    def rebuild_keys(self, rebuilder: KeyRebuilder) -> None:
        """Of the pages that it can rebuild, move only the values from now on."""
        self._hierarchy.mover.rebuild_keys(rebuilder, self.fast)

    def begin(self, slot: int) -> None:
        """A sequence takes this slot."""
        if self.sharing is not None:
            self.sharing.begin(slot, self.num_fast_frames)

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        self._note_tables()
        pages_N = self.table.pages_of_sequence(slot)
        self._hierarchy.free(pages_N)
        self.table.revive(pages_N)
        if self.sharing is not None:
            self.sharing.release(slot, self.num_fast_frames)

    def end_step(self) -> None:
        """All layers of a forward pass are through."""
        if self.sharing is None or self._mandatory == 0:
            return
        count = self.counters.decode
        count.pages_mandatory += self._mandatory
        count.pages_resident += self.num_fast_frames - self.fast.num_free
        self._mandatory = 0
        self.sharing.end_step(self.num_fast_frames)

    def free(self, pages_N: Tensor) -> None:
        """Forget pages whose tokens are elsewhere."""
        self._hierarchy.free(pages_N)

    def forget(self, pages_N: Tensor) -> None:
        """Free pages of which no slot counts any more, nor is dead."""
        self._hierarchy.free(pages_N)
        self.table.revive(pages_N)

    def damaged_slots(self) -> dict[int, str]:
        """Sequences whose content was lost since the last call, and the reason."""
        found = {}
        for pages_N, reason in self._hierarchy.mover.take_damaged():
            owners = self.table.sequences_of(pages_N).unique().tolist()
            found.update(dict.fromkeys(owners, reason))
        return found

    def _note_tables(self) -> None:
        """Keep what the page tables took when they took the most, by level and part."""
        now = {level.name: level.table.num_bytes() for level in self.levels}
        if _sum(now) > _sum(self.peak_tables):
            self.peak_tables = now

    def _count(self, wanted_N: Tensor, hits: int, *, mandatory: bool) -> None:
        count = self.counters.current
        count.pages_wanted += wanted_N.numel()
        count.pages_hit += hits
        if mandatory and self.sharing is not None:
            self._mandatory += wanted_N.numel()
            self.sharing.use(wanted_N)

    def _victims(self, absent_N: Tensor, wanted_N: Tensor, frame_N: Tensor) -> Tensor:
        short = absent_N.numel() - self.fast.num_free
        if self.sharing is None or not self.sharing.has_budgets:
            victims_N = self.fast.victims(short, frame_N)
        else:
            victims_N = self.sharing.victims(self.fast, short, absent_N, frame_N)
        if victims_N.numel() < short:
            self._refuse(wanted_N.numel())
        return victims_N

    def _make_so(self, plan: FetchPlan) -> list[Move]:
        """Change the tables as planned; the moves that make it true."""
        moves = self._hierarchy.write_back(0, plan.dirty_N, keep_N=plan.loads_N)
        self.fast.drop(plan.victims_N)
        self.counters.current.pages_evicted += plan.victims_N.numel()
        moves += self._hierarchy.load(plan.loads_N)
        if plan.fresh_N.numel():
            self.fast.place(plan.fresh_N)
        return moves

    def _refuse(self, needed: int) -> None:
        name, have = self.fast.name, self.num_fast_frames
        size = needed * self.fast.tier.frame_bytes
        raise OutOfFramesError(
            f"tier.{name}.size holds {have} pages, one step of one layer needs {needed}; raise "
            f"tier.{name}.size to {size} bytes, or lower algo.retrieve.budget_tokens, "
            "backend.max_batch or backend.chunk_tokens"
        )


def _sum(bytes_by_part: dict[str, dict[str, int]]) -> int:
    return sum(sum(parts.values()) for parts in bytes_by_part.values())
