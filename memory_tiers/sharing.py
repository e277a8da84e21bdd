"""How the sequences that run share the fast tier: working sets, budgets, and who gives way."""

import ctypes
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.budgets.base import BudgetRule
from memory_tiers.level import Level
from memory_tiers.native import Entry, load_entry
from memory_tiers.page_table import PageTable
from memory_tiers.working_set import WorkingSets

# Rounds in which victims are sought, and how many times too many are asked for: a policy may name
# too many of one sequence at first.
ROUNDS, SPARE = 3, 4
SOURCE = Path(__file__).with_name("sharing.cpp")
ARGUMENTS = (
    ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 2, ctypes.c_int64, ctypes.c_void_p,
)  # fmt: skip


class Sharing:
    """Measures working sets, and with a rule turns them into a budget of frames per sequence."""

    def __init__(self, table: PageTable, rule: BudgetRule | None, window: int) -> None:
        """Nobody runs; window: decode steps that a working set looks back."""
        self._table = table
        self._rule = rule
        self._working_sets = WorkingSets(table, window)
        self.running_B = torch.zeros(table.num_sequences, dtype=torch.bool, device=table.device)
        self.budget_B: Tensor | None = None
        self._none_N = torch.empty(0, dtype=torch.int64, device=table.device)

    @property
    def has_budgets(self) -> bool:
        """Whether a sequence has a budget of its own."""
        return self.budget_B is not None

    @property
    def working_set_B(self) -> Tensor:
        """Pages that each sequence slot used lately, int64 [B]."""
        return self._working_sets.sizes_B

    def begin(self, slot: int, num_frames: int) -> None:
        """A sequence takes the slot, or goes on after a pause."""
        self.running_B[slot] = True
        self._share(num_frames)

    def pause(self, slot: int, num_frames: int) -> None:
        """The sequence in the slot waits: its pages are the first to give way."""
        self.running_B[slot] = False
        self._share(num_frames)

    def release(self, slot: int, num_frames: int) -> None:
        """The sequence is gone."""
        self._working_sets.forget(slot)
        self.pause(slot, num_frames)

    def use(self, pages_N: Tensor) -> None:
        """A decode step asks for these pages."""
        self._working_sets.use(pages_N)

    def end_step(self, num_frames: int) -> None:
        """All layers are through; budgets follow the working sets."""
        self._working_sets.end_step()
        self._share(num_frames)

    def victims(self, fast: Level, short: int, absent_N: Tensor, pinned_N: Tensor) -> Tensor:
        """Pages that make room for `absent_N`, of sequences above their budget first.

        short: frames that are missing. Fewer pages come back only where all others are pinned.
        """
        assert self._rule is not None and self.budget_B is not None and fast.owner_F is not None
        coming_B = torch.bincount(self._table.sequences_of(absent_N), minlength=len(self.budget_B))
        over_B = (fast.held_B + coming_B - self.budget_B).clamp(min=0)
        barred_F = fast.mask(pinned_N)
        over = int(over_B.sum())
        count = over if self._rule.strict else min(short, over)
        frames_V = self._above_budget(fast, over_B, barred_F, count)
        if frames_V.numel() < short:
            rest_F = barred_F.index_fill(0, frames_V, True)
            frames_V = torch.cat((frames_V, fast.rank(short - frames_V.numel(), rest_F)))
        return fast.page_of_F[frames_V]

    def _above_budget(self, fast: Level, over_B: Tensor, barred_F: Tensor, count: int) -> Tensor:
        """At most `count` frames, of no sequence more than it is over its budget."""
        chosen = [self._none_N]
        for _ in range(ROUNDS):
            if count <= 0:
                break
            # More than are needed: some are of sequences that have given enough.
            frames_V = fast.rank(SPARE * count, barred_F | self._within_budget(fast, over_B))
            taken_V, over_B = take_within(frames_V, fast.owner_F, over_B, count)
            count -= taken_V.numel()
            chosen.append(taken_V)
            if count > 0:
                barred_F = barred_F.index_fill(0, taken_V, True)
        return torch.cat(chosen)

    def _within_budget(self, fast: Level, over_B: Tensor) -> Tensor:
        """Frames of sequences that hold no more than they may, bool [F], or [1] where none does."""
        within_B = over_B == 0
        return within_B[fast.owner_F] if bool(within_B.any()) else within_B[:1]

    def _share(self, num_frames: int) -> None:
        if self._rule is not None:
            self.budget_B = self._rule.frames(num_frames, self.working_set_B, self.running_B)


class Taken(NamedTuple):
    """Frames taken, and what each owner still has to give."""

    frames_N: Tensor
    left_B: Tensor


def take_within(frames_V: Tensor, owner_F: Tensor, left_B: Tensor, count: int) -> Taken:
    """The first `count` frames in order, of each owner no more than it has to give."""
    entry = compiled_take()
    if entry is None or not frames_V.is_cpu:
        return take_by_torch(frames_V, owner_F, left_B, count)
    left_B, taken_N = left_B.clone(), torch.empty_like(frames_V)
    tensors = (owner_F, left_B)
    num = entry(
        frames_V.data_ptr(), len(frames_V), *(one.data_ptr() for one in tensors), count,
        taken_N.data_ptr(),
    )  # fmt: skip
    return Taken(taken_N[:num], left_B)


def take_by_torch(frames_V: Tensor, owner_F: Tensor, left_B: Tensor, count: int) -> Taken:
    """What `take_within` does, on any device: the oracle of the compiled way."""
    owner_V = owner_F[frames_V]
    order_V = owner_V.argsort(stable=True)
    sorted_V = owner_V[order_V]
    place_V = torch.arange(len(owner_V), device=owner_V.device)
    place_V -= torch.searchsorted(sorted_V, sorted_V)
    within_V = torch.empty_like(place_V).index_copy_(0, order_V, place_V) < left_B[owner_V]
    taken_V = frames_V[within_V][:count]
    return Taken(taken_V, left_B - torch.bincount(owner_F[taken_V], minlength=len(left_B)))


def compiled_take() -> Entry | None:
    """The pass in C++; None where there is no compiler, and torch takes instead."""
    return load_entry(SOURCE, "take_within", ARGUMENTS)
