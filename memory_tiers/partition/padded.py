"""A partition is a cluster; each begins a page, and the rest of its last page stays empty."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from memory_tiers.partition.clusters import ClusterMapper


@dataclass(frozen=True, kw_only=True)
class Padded(ClusterMapper):
    """Serves clusters: no page holds two of them, at the price of slots that stay empty."""

    moves: ClassVar[bool] = True

    def place(self, sizes_RP: Tensor, page_tokens: int) -> Tensor:
        """See ClusterMapper."""
        pages_RP = torch.div(sizes_RP + page_tokens - 1, page_tokens, rounding_mode="trunc")
        return (pages_RP.cumsum(dim=1) - pages_RP) * page_tokens

    def own_pages(self, num_tokens: int, partitions: int, page_tokens: int) -> int:
        """See PartitionMapper: a cluster fills all of its pages but one."""
        return num_tokens // page_tokens + partitions

    def waste_pages(self, partitions: int) -> int:
        """See PartitionMapper: a page per cluster, and those where sinks end and newest begin."""
        return partitions + 2
