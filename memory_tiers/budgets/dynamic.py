"""Budgets that follow measured locality (SPIN, arXiv:2604.26837, section 5)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from memory_tiers.budgets.base import BudgetRule


@dataclass(frozen=True, kw_only=True)
class Dynamic(BudgetRule):
    """Shares in proportion to working sets, so that the rest is for those who reuse less.

    A sequence that is not measured yet counts as the mean of the others. Working sets that do not
    fit together get no budgets: the eviction policy does better than parts that serve nobody.
    """

    strict: ClassVar[bool] = False

    def frames(self, num_frames: int, working_set_B: Tensor, running_B: Tensor) -> Tensor:
        """See BudgetRule."""
        weight_B = working_set_B.double() * running_B
        known_B = weight_B > 0
        if not bool(known_B.any()):
            weight_B = running_B.double()
        else:
            mean = weight_B.sum() / known_B.sum()
            weight_B = torch.where(running_B & ~known_B, mean, weight_B)
        if weight_B.sum() > num_frames:
            return torch.full_like(working_set_B, num_frames)
        share_B = weight_B / weight_B.sum().clamp(min=1)
        return (share_B * num_frames).long()
