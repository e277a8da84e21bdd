"""The role that decides which tokens stay at all; what it drops is freed for good."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Evictor(ABC):
    """Decides which tokens stay at all; what it drops is freed for good.

    budget_tokens: tokens that a row may hold, the ones of the coming step included.
    """

    budget_tokens: int

    @property
    @abstractmethod
    def least_budget(self) -> int:
        """Tokens that always stay, one that is chosen, and one that comes."""

    @property
    def state_bytes(self) -> int:
        """Bytes kept per token and kv head, to decide by."""
        return 0

    def most_tokens(self, context: int) -> int:
        """Tokens that a row of a sequence of `context` tokens may hold."""
        return self.budget_tokens

    @property
    @abstractmethod
    def most_rows(self) -> int:
        """Tokens of one sequence that a step may append at most."""

    @abstractmethod
    def keep(self, num_tokens_R: Tensor, coming: int, num_slots: int) -> Tensor:
        """Which stored tokens stay when `coming` more are appended: bool [R, num_slots]."""
