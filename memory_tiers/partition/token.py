"""A partition is a token; tokens that share a page share its read."""

from dataclasses import dataclass
from typing import ClassVar

from memory_tiers.base import Layout, PageSelection, PartitionMapper, Rows
from memory_tiers.partition.slot_ranges import pages_of, uniform_ranges
from sparse_algos.selection import PartitionKind, Selection


@dataclass(frozen=True, kw_only=True)
class Token(PartitionMapper):
    """Serves single tokens: the containing pages, each once, with the chosen slots live."""

    serves: ClassVar[frozenset[PartitionKind]] = frozenset({"token"})
    in_order: ClassVar[bool] = True

    def refusal(self, kind: PartitionKind, partition_size: int, page_tokens: int) -> str | None:
        """See PartitionMapper."""
        if kind not in self.serves:
            return f"partition=token places tokens, the algorithm selects {kind}s"
        return None

    def to_pages(self, selection: Selection, rows: Rows, layout: Layout) -> PageSelection:
        """See PartitionMapper."""
        return pages_of(uniform_ranges(selection, rows, layout), rows, layout, aligned=True)
