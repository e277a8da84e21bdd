"""A partition is a cluster; clusters lie one behind the other in the slots of their tokens."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from memory_tiers.partition.clusters import ClusterMapper


@dataclass(frozen=True, kw_only=True)
class Packed(ClusterMapper):
    """Serves clusters: tokens change places with each other, and no slot is wasted."""

    moves: ClassVar[bool] = False

    def place(self, sizes_RP: Tensor, page_tokens: int) -> Tensor:
        """See ClusterMapper."""
        return sizes_RP.cumsum(dim=1) - sizes_RP
