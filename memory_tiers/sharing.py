"""How the sequences that run share the fast tier: working sets, budgets, and who gives way."""

import torch
from torch import Tensor

from memory_tiers.budgets.base import BudgetRule
from memory_tiers.level import Level
from memory_tiers.page_table import PageTable
from memory_tiers.working_set import WorkingSets

# Rounds in which victims are sought; a policy may name too many of one sequence at first.
ROUNDS = 3


class Sharing:
    """Measures working sets, and with a rule turns them into a budget of frames per sequence."""

    def __init__(self, table: PageTable, rule: BudgetRule | None, window: int) -> None:
        """Nobody runs; window: decode steps that a working set looks back."""
        self._table = table
        self._rule = rule
        self._working_sets = WorkingSets(table, window)
        self.running_B = torch.zeros(table.num_sequences, dtype=torch.bool, device=table.device)
        self.budget_B: Tensor | None = None

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
        count = int(over_B.sum()) if self._rule.strict else min(short, int(over_B.sum()))
        barred_F = fast.mask(pinned_N)
        chosen = []
        for _ in range(ROUNDS):
            if count <= 0:
                break
            frames_V = fast.rank(count, barred_F | (over_B == 0)[fast.owner_F])
            owner_V = fast.owner_F[frames_V]
            within_V = _rank_in_group(owner_V) < over_B[owner_V]
            frames_V = frames_V[within_V]
            over_B -= torch.bincount(owner_V[within_V], minlength=len(over_B))
            barred_F = barred_F.index_fill(0, frames_V, True)
            count -= frames_V.numel()
            chosen.append(frames_V)
        taken = sum(frames_V.numel() for frames_V in chosen)
        if taken < short:
            chosen.append(fast.rank(short - taken, barred_F))
        return fast.page_of_F[torch.cat(chosen)] if chosen else absent_N[:0]

    def _share(self, num_frames: int) -> None:
        if self._rule is not None:
            self.budget_B = self._rule.frames(num_frames, self.working_set_B, self.running_B)


def _rank_in_group(group_N: Tensor) -> Tensor:
    """The place of each entry among those of its group, in the order given."""
    order_N = group_N.argsort(stable=True)
    sorted_N = group_N[order_N]
    first_N = torch.searchsorted(sorted_N, sorted_N)
    place_N = torch.arange(len(group_N), device=group_N.device) - first_N
    return torch.empty_like(place_N).index_copy_(0, order_N, place_N)
