"""What mappers of clusters have in common: they say where clusters go, and read them from there."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from memory_tiers.base import Layout, PageSelection, PartitionMapper, Rows
from memory_tiers.partition.slot_ranges import pages_of
from sparse_algos.selection import PartitionKind, Selection


@dataclass(frozen=True, kw_only=True)
class ClusterMapper(PartitionMapper):
    """Clusters of any size, each in consecutive slots of its row."""

    serves: ClassVar[frozenset[PartitionKind]] = frozenset({"cluster"})

    def refusal(self, kind: PartitionKind, partition_size: int, page_tokens: int) -> str | None:
        """See PartitionMapper."""
        if kind not in self.serves:
            name = type(self).__name__.lower()
            return f"partition={name} places clusters, the algorithm selects {kind}s"
        return None

    @abstractmethod
    def place(self, sizes_RP: Tensor, page_tokens: int) -> Tensor:
        """First slot of each cluster, int64 [R, P], from the first slot that is given to them."""

    def to_pages(self, selection: Selection, rows: Rows, layout: Layout) -> PageSelection:
        """See PartitionMapper."""
        assert layout.ranges is not None, "clusters lie where their offset table says"
        return pages_of(layout.ranges, rows, layout)
