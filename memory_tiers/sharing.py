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
        barred_F = fast.mask(pinned_N)
        if self._rule.strict:
            frames_V = self._exactly(fast, over_B, barred_F)
        else:
            frames_V = fast.rank(short, self._within_budget(fast, over_B) | barred_F)
        if frames_V.numel() < short:
            rest_F = barred_F.index_fill(0, frames_V, True)
            frames_V = torch.cat((frames_V, fast.rank(short - frames_V.numel(), rest_F)))
        return fast.page_of_F[frames_V]

    def _exactly(self, fast: Level, over_B: Tensor, barred_F: Tensor) -> Tensor:
        """As many frames of each sequence as it is over its budget, where they may go."""
        chosen = [barred_F.nonzero()[:0].squeeze(1)]
        for _ in range(ROUNDS):
            count = int(over_B.sum())
            if count <= 0:
                break
            frames_V = fast.rank(count, barred_F | self._within_budget(fast, over_B))
            owner_V = fast.owner_F[frames_V]
            within_V = _rank_in_group(owner_V) < over_B[owner_V]
            frames_V = frames_V[within_V]
            over_B = over_B - torch.bincount(owner_V[within_V], minlength=len(over_B))
            barred_F = barred_F.index_fill(0, frames_V, True)
            chosen.append(frames_V)
        return torch.cat(chosen)

    def _within_budget(self, fast: Level, over_B: Tensor) -> Tensor:
        """Frames of sequences that hold no more than they may, bool [F], or [1] where none does."""
        within_B = over_B == 0
        return within_B[fast.owner_F] if bool(within_B.any()) else within_B[:1]

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
