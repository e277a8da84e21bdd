"""The contract of a budget rule: how many frames of the fast tier each sequence may keep."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class BudgetRule(ABC):
    """Shares the fast tier among the sequences that run.

    strict: a sequence never holds more than its budget, even while frames are free; otherwise a
    budget only says whose pages go first when room is needed.
    """

    strict: ClassVar[bool]

    @abstractmethod
    def frames(self, num_frames: int, working_set_B: Tensor, running_B: Tensor) -> Tensor:
        """Frames that each sequence slot may keep, int64 [B].

        working_set_B: pages used lately, int64; running_B: bool, slots with a running sequence.
        """
