"""The costs of metadata as tables for people."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from harness.studies.spin_costs import Case, CaseBytes
from harness.table import print_text
from harness.units import binary_bytes, digits
from memory_tiers.tables.report import MetadataBytes

# SPIN, figure 15: flat tables of Llama-3.1-70B at 128K tokens, 32 sequences, pages of 8 tokens.
SPIN_FLAT_BYTES, SPIN_SLOTS = 100e9, 80 * 8 * 32 * (131072 // 8)
NOTES = (
    "KV: 16 bit; flat, 2 levels: bytes in HBM, counted on the same tensors in host memory; the two "
    "levels with spare cells and a working set at random",
    "random, runs, contiguous: how many times smaller than flat, for a working set of single pages "
    "anywhere, of stretches of run_tokens anywhere, and of one stretch",
    "flat: 16 B in HBM for every page that could exist: its frame in HBM, its frame in host "
    "memory, and its partition's first slot and token count, int32 each",
    "two levels in HBM: a directory (12 B for 64 pages), and frames in slabs; in host memory, as "
    "in SPIN: the CPU page table and the partition offsets, here with an entry for every page",
    "SPIN reports up to 100 GB flat for Llama-3.1-70B, 128K x 32: "
    f"{SPIN_FLAT_BYTES / SPIN_SLOTS:.0f} B for each page of 8 tokens against 16 B here; what else "
    "it counts is not known, so its figure is not reproduced",
    "~ measured with fewer of the sequences, and multiplied",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Costs of a case; measured_batch: sequences that were measured, all of them or fewer."""

    model: str
    case: Case
    measured_batch: int
    costs: CaseBytes

    @property
    def is_whole(self) -> bool:
        """Whether nothing was multiplied."""
        return self.measured_batch == self.case.batch

    @property
    def mark(self) -> str:
        """What stands before a line of numbers that were multiplied."""
        return " " if self.is_whole else "~"


def render(rows: Sequence[Row], headline: Row | None, console: Console) -> None:
    """Print a table for each model and page size, what a page costs, and what it all means."""
    for (model, page_tokens), group in _grouped(rows):
        shape = group[0].case.shape
        print_text(
            console,
            f"{model}: {shape.num_layers} layers, {shape.num_kv_heads} kv heads x "
            f"{shape.head_dim}, pages of {page_tokens} tokens",
            "bold",
        )
        console.print(_batches(group))
    print_text(console, "bytes for each page that could exist; live: for each page in HBM", "bold")
    console.print(_pages(rows))
    for note in NOTES:
        print_text(console, note, "dim")
    if headline is not None:
        print_text(console, _sentence(headline), "bold")


def size(tokens: int) -> str:
    """Tokens in thousands of 1024 where they are whole."""
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else str(tokens)


def _grouped(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, int], list[Row]]]:
    keys = dict.fromkeys((row.model, row.case.page_tokens) for row in rows)
    for key in keys:
        yield key, [row for row in rows if (row.model, row.case.page_tokens) == key]


def _batches(rows: Sequence[Row]) -> Table:
    """A line for each context and batch."""
    placements = list(rows[0].costs.two_level)
    worst = placements[0]
    shown = _table(" tokens", "KV", "flat", "2 levels", "in host", *placements)
    for row in rows:
        costs = row.costs
        found = costs.two_level[worst]
        amounts = (costs.flat.on("device"), found.on("device"), found.on("host"))
        shown.add_row(
            f"{row.mark}{size(row.case.context)} x {row.case.batch}",
            *(binary_bytes(amount) for amount in (row.case.kv_bytes, *amounts)),
            *(f"{digits(costs.ratio(name))} x" for name in placements),
        )
    return shown


def _pages(rows: Sequence[Row]) -> Table:
    """What a page costs: of each context and page size, the case that most was measured of."""
    shown = _table(
        "tokens", "page", "working set", "directory", "slabs", "spare", "all", "live", "in host"
    )
    for row in _largest(rows):
        where = (size(row.case.context), str(row.case.page_tokens))
        shown.add_row(*where, "flat", *_cells(row.costs.flat))
        for name, found in row.costs.two_level.items():
            shown.add_row(*where, name, *_cells(found))
    return shown


def _cells(found: MetadataBytes) -> list[str]:
    """Directory, slabs and spare cells, where there are such, then totals."""
    tables = [table for table in found.tables if table.tier == "device"]
    spare = sum(table.reserved for table in tables)
    parts = [*(table.used for table in tables), spare] if len(tables) == 2 else []
    shown = [f"{part / found.num_slots:.3f}" for part in parts] or ["-", "-", "-"]
    totals = (found.per_slot("device"), found.per_live_slot("device"), found.per_slot("host"))
    return [*shown, *(digits(total) for total in totals)]


def _largest(rows: Sequence[Row]) -> Iterator[Row]:
    keys = dict.fromkeys((row.case.page_tokens, row.case.context) for row in rows)
    for key in keys:
        alike = [row for row in rows if (row.case.page_tokens, row.case.context) == key]
        yield max(alike, key=lambda row: row.measured_batch * row.case.shape.num_layers)


def _sentence(row: Row) -> str:
    """The case that the paper names, in one line."""
    costs, case = row.costs, row.case
    how = "measured whole" if row.is_whole else f"measured with {row.measured_batch} sequences"
    ratios = ", ".join(f"{digits(costs.ratio(name))} {name}" for name in costs.two_level)
    flat = binary_bytes(costs.flat.on("device"))
    return (
        f"{row.model}, {size(case.context)} x {case.batch}, pages of {case.page_tokens}, "
        f"{size(case.working_set_tokens)} tokens of each row in HBM: {flat} flat, times smaller in "
        f"two levels: {ratios} ({how}; SPIN reports 49 to 78)"
    )


def _table(first: str, *others: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column(first)
    for name in others:
        shown.add_column(name, justify="right")
    return shown
