"""What metadata costs: bytes per table and per tier, in all and per slot, from real tables."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from memory_tiers.base import FrameTable
from memory_tiers.tables.column import PagedColumn
from memory_tiers.tables.offsets import PartitionOffsets

Tier = Literal["device", "host"]


@dataclass(frozen=True, kw_only=True)
class TableBytes:
    """One table: bytes in use, and bytes that its pool reserves beyond them."""

    name: str
    tier: Tier
    used: int
    reserved: int = 0

    @property
    def total(self) -> int:
        """All bytes that are allocated."""
        return self.used + self.reserved

    def times(self, factor: float) -> "TableBytes":
        """The same table for `factor` times the rows."""
        return replace(self, used=round(self.used * factor), reserved=round(self.reserved * factor))


@dataclass(frozen=True, kw_only=True)
class MetadataBytes:
    """All tables of one layout.

    num_slots: pages that could exist, (row, page) pairs; num_live: those in the fast tier.
    """

    tables: tuple[TableBytes, ...]
    num_slots: int
    num_live: int

    def on(self, tier: Tier) -> int:
        """Bytes allocated on a tier."""
        return sum(table.total for table in self.tables if table.tier == tier)

    def per_slot(self, tier: Tier) -> float:
        """Bytes on a tier for each page that could exist."""
        return self.on(tier) / self.num_slots

    def per_live_slot(self, tier: Tier) -> float:
        """Bytes on a tier for each page in the fast tier."""
        return self.on(tier) / self.num_live

    def times(self, factor: float) -> "MetadataBytes":
        """The same layout for `factor` times the rows: every table has a fixed size per row."""
        return MetadataBytes(
            tables=tuple(table.times(factor) for table in self.tables),
            num_slots=round(self.num_slots * factor),
            num_live=round(self.num_live * factor),
        )


def two_level_bytes(
    *,
    fast: FrameTable,
    slow: FrameTable,
    offsets: PartitionOffsets,
    num_slots: int,
    num_live: int,
) -> MetadataBytes:
    """SPIN's four tables: the first two in the fast tier's memory, the others in host memory.

    fast, slow: where pages are in the fast tier and in host memory, tables in two levels.
    """
    parts = fast.num_bytes()
    tables = (
        TableBytes(name="meta-partition", tier="device", used=parts["directory"]),
        TableBytes(name="page", tier="device", used=parts["segments"], reserved=parts["reserved"]),
        _in_host("cpu page", slow),
        _in_host("cpu partition offset", offsets),
    )
    return MetadataBytes(tables=tables, num_slots=num_slots, num_live=num_live)


def flat_bytes(
    named: Sequence[tuple[str, FrameTable]], *, num_slots: int, num_live: int
) -> MetadataBytes:
    """Flat tables, all of them in the fast tier's memory, as a kernel finds them there."""
    tables = tuple(
        TableBytes(name=name, tier="device", used=sum(table.num_bytes().values()))
        for name, table in named
    )
    return MetadataBytes(tables=tables, num_slots=num_slots, num_live=num_live)


def _in_host(name: str, table: FrameTable | PartitionOffsets | PagedColumn) -> TableBytes:
    parts = table.num_bytes()
    reserved = parts["reserved"]
    return TableBytes(
        name=name, tier="host", used=sum(parts.values()) - reserved, reserved=reserved
    )
