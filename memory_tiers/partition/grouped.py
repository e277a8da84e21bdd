"""Several small partitions lie in one page, which is read once for all of them."""

from dataclasses import dataclass
from typing import ClassVar

from memory_tiers.base import Layout, PageSelection, PartitionMapper, Rows
from memory_tiers.partition.slot_ranges import pages_of, uniform_ranges
from sparse_algos.selection import PartitionKind, Selection


@dataclass(frozen=True, kw_only=True)
class Grouped(PartitionMapper):
    """Serves blocks of which several fill a page."""

    serves: ClassVar[frozenset[PartitionKind]] = frozenset({"block"})
    in_order: ClassVar[bool] = True

    def refusal(self, kind: PartitionKind, partition_size: int, page_tokens: int) -> str | None:
        """See PartitionMapper."""
        if kind not in self.serves:
            return f"partition=grouped places blocks, the algorithm selects {kind}s"
        if partition_size >= page_tokens or page_tokens % partition_size:
            return (
                f"partition=grouped places blocks of which several fill a page, the algorithm's "
                f"hold {partition_size} tokens and partition.page_tokens={page_tokens}"
            )
        return None

    def to_pages(self, selection: Selection, rows: Rows, layout: Layout) -> PageSelection:
        """See PartitionMapper."""
        return pages_of(uniform_ranges(selection, rows, layout), rows, layout, aligned=True)
