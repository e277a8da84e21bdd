"""One partition lies on several pages."""

from dataclasses import dataclass
from typing import ClassVar

from memory_tiers.base import Layout, PageSelection, PartitionMapper, Rows
from memory_tiers.partition.slot_ranges import pages_of, uniform_ranges
from sparse_algos.selection import PartitionKind, Selection


@dataclass(frozen=True, kw_only=True)
class Split(PartitionMapper):
    """Serves blocks of several whole pages."""

    serves: ClassVar[frozenset[PartitionKind]] = frozenset({"block"})
    in_order: ClassVar[bool] = True

    def refusal(self, kind: PartitionKind, partition_size: int, page_tokens: int) -> str | None:
        """See PartitionMapper."""
        if kind not in self.serves:
            return f"partition=split places blocks, the algorithm selects {kind}s"
        if partition_size <= page_tokens or partition_size % page_tokens:
            return (
                f"partition=split places blocks of several whole pages, the algorithm's "
                f"hold {partition_size} tokens and partition.page_tokens={page_tokens}"
            )
        return None

    def to_pages(self, selection: Selection, rows: Rows, layout: Layout) -> PageSelection:
        """See PartitionMapper."""
        return pages_of(uniform_ranges(selection, rows, layout), rows, layout)
