"""What the page tables of one model, context and batch cost: real tables, filled and counted."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from harness.studies.spin_placements import PLACEMENTS, Placement, WorkingSet
from memory_tiers.tables.flat import Flat
from memory_tiers.tables.offsets import PartitionOffsets
from memory_tiers.tables.report import MetadataBytes, flat_bytes, two_level_bytes
from memory_tiers.tables.segments import GROUP
from memory_tiers.tables.two_level import TwoLevel

CPU = torch.device("cpu")
# Most bytes that one layout takes for a page that could exist, while its pools grow.
BYTES_PER_SLOT = 28
PAGES_AT_ONCE = 1 << 20
# Where the counts of a case come from.
COUNTS = {
    "context": "contexts",
    "batch": "batches",
    "page_tokens": "page_tokens",
    "working_set_tokens": "working_set_tokens",
    "run_tokens": "run_tokens",
}
FLAT_TABLES = ("page", "cpu page", "cpu partition offset", "cpu partition count")


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What the KV cache of a model depends on."""

    num_layers: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model, context, batch and page size; a row has that many tokens in the fast tier."""

    shape: ModelShape
    context: int
    batch: int
    page_tokens: int
    working_set_tokens: int
    run_tokens: int

    def __post_init__(self) -> None:
        """A working set is whole runs, and a run is whole pages."""
        for name, key in COUNTS.items():
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"study.{key}={value!r} must be a whole number of at least 1")
        for part, whole in (("page_tokens", "run_tokens"), ("run_tokens", "working_set_tokens")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(
                    f"study.{whole}={getattr(self, whole)} must be a multiple of "
                    f"study.{part}={getattr(self, part)}"
                )
        if self.working_set_tokens > self.context:
            raise ValueError(
                f"study.working_set_tokens={self.working_set_tokens} is more than a context of "
                f"{self.context} tokens; lower it or raise study.contexts"
            )

    @property
    def num_rows(self) -> int:
        """Rows of the page table, over all layers."""
        return self.shape.num_layers * self.batch * self.shape.num_kv_heads

    @property
    def pages(self) -> WorkingSet:
        """Sizes of a row in pages; a row has whole groups of them."""
        size = self.page_tokens
        num_pages = -(-self.context // (size * GROUP)) * GROUP
        return WorkingSet(num_pages, self.working_set_tokens // size, self.run_tokens // size)

    @property
    def num_slots(self) -> int:
        """Pages that could exist."""
        return self.num_rows * self.pages.pages_per_row

    @property
    def num_live(self) -> int:
        """Pages in the fast tier."""
        return self.num_rows * self.pages.live_pages

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values in 16 bits."""
        return 2 * 2 * self.shape.head_dim * self.num_rows * self.context


@dataclass(frozen=True, kw_only=True)
class CaseBytes:
    """Flat and two-level metadata of a case, the latter by placement."""

    flat: MetadataBytes
    two_level: Mapping[str, MetadataBytes]

    def ratio(self, placement: str) -> float:
        """How many times smaller the two levels are, in HBM."""
        return self.flat.on("device") / self.two_level[placement].on("device")

    def times(self, factor: float) -> "CaseBytes":
        """The same for `factor` times the sequences."""
        return CaseBytes(
            flat=self.flat.times(factor),
            two_level={name: one.times(factor) for name, one in self.two_level.items()},
        )


def part_of(case: Case, max_bytes: int) -> Case:
    """As many of a case's sequences as have tables in `max_bytes`.

    Raises ValueError where not even one has.
    """
    each = case.num_slots // case.batch * BYTES_PER_SLOT
    if each > max_bytes:
        raise ValueError(
            f"study.memory gives {max_bytes} bytes, the tables of one sequence of {case.context} "
            f"tokens take up to {each}; raise study.memory or lower study.contexts"
        )
    return replace(case, batch=min(case.batch, max_bytes // each))


def measure(case: Case, seed: int) -> CaseBytes:
    """Build, fill and count the tables of a case."""
    return CaseBytes(flat=_flat(case, seed), two_level=_two_level(case, seed))


def _flat(case: Case, seed: int) -> MetadataBytes:
    """Four columns for all pages that could exist; every page is in host memory."""
    tables = {name: Flat(case.num_slots, CPU) for name in FLAT_TABLES}
    for pages_N, frames_N in _live_pages(case, PLACEMENTS["random"], seed):
        tables["page"].place(pages_N, frames_N)
    cells = [tables[name].view().cells_C for name in FLAT_TABLES[1:]]
    torch.arange(case.num_slots, out=cells[0])
    cells[1].view(case.num_rows, -1)[:] = torch.arange(case.pages.pages_per_row) * case.page_tokens
    cells[2].fill_(case.page_tokens)
    return flat_bytes(list(tables.items()), num_slots=case.num_slots, num_live=case.num_live)


def _two_level(case: Case, seed: int) -> dict[str, MetadataBytes]:
    """SPIN's four tables for each placement; those in host memory are the same for all."""
    slow, offsets = TwoLevel(case.num_slots, CPU), _offsets(case)
    for start in range(0, case.num_slots, PAGES_AT_ONCE):
        pages_N = torch.arange(start, min(start + PAGES_AT_ONCE, case.num_slots))
        slow.place(pages_N, pages_N)
    found = {}
    for name, placement in PLACEMENTS.items():
        fast = TwoLevel(case.num_slots, CPU)
        for pages_N, frames_N in _live_pages(case, placement, seed):
            fast.place(pages_N, frames_N)
        found[name] = two_level_bytes(
            fast=fast,
            slow=slow,
            offsets=offsets,
            num_slots=case.num_slots,
            num_live=case.num_live,
        )
    return found


def _offsets(case: Case) -> PartitionOffsets:
    """Partitions of one page each."""
    per_row = case.pages.pages_per_row
    offsets = PartitionOffsets(case.num_rows, per_row, CPU)
    first_P = torch.arange(per_row, dtype=torch.int32) * case.page_tokens
    count_P = torch.full_like(first_P, case.page_tokens)
    for rows_R in torch.arange(case.num_rows).split(max(1, PAGES_AT_ONCE // per_row)):
        shape = (len(rows_R), per_row)
        offsets.write(rows_R, first_P.expand(shape), count_P.expand(shape))
    return offsets


def _live_pages(
    case: Case, placement: Placement, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pages of the working set and the frames they get, layer after layer, as prefill comes."""
    generator = torch.Generator().manual_seed(seed)
    per_layer = case.num_rows // case.shape.num_layers
    rows_R1 = torch.arange(per_layer).unsqueeze(1)
    for layer in range(case.shape.num_layers):
        index_RN = placement(per_layer, case.pages, generator)
        pages_N = ((layer * per_layer + rows_R1) * case.pages.pages_per_row + index_RN).flatten()
        yield pages_N, torch.arange(pages_N.numel()) + layer * pages_N.numel()
