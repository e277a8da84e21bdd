"""Pages whose keys can be rebuilt: of these only the values move between tiers in memory."""

from abc import ABC, abstractmethod

from torch import Tensor


class KeyRebuilder(ABC):
    """Knows which pages' keys need not travel, and writes them where the pages arrive."""

    @abstractmethod
    def is_rebuilt(self, pages_N: Tensor) -> Tensor:
        """Which of these pages have keys that can be rebuilt, bool [N]."""

    @abstractmethod
    def refill(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """Write the keys of such pages, whose values are in these frames of the fast tier."""
