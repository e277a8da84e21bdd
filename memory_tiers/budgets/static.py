"""Equal parts: what a system without measured locality does, the baseline of the dynamic rule."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from memory_tiers.budgets.base import BudgetRule


@dataclass(frozen=True, kw_only=True)
class Static(BudgetRule):
    """Each slot, in use or not, owns the same part of the fast tier."""

    strict: ClassVar[bool] = True

    def frames(self, num_frames: int, working_set_B: Tensor, running_B: Tensor) -> Tensor:
        """See BudgetRule."""
        return torch.full_like(working_set_B, num_frames // len(working_set_B))
