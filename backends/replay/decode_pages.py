"""The pages that decoding asks for, step by step, whatever the caches were before."""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backends.batch import Batch
from backends.replay.cache_sim import Access, PageTrace, with_content
from memory_tiers.base import KVGeometry, Layout, PartitionMapper
from memory_tiers.page_table import PageTable
from memory_tiers.trace import Call, Trace


@dataclass(frozen=True, kw_only=True)
class DecodeTrace:
    """Appends and selected reads of the decode steps after the warm-up.

    The fast tier is taken to be empty when a sequence starts to decode, so that its first step
    finds nothing, whatever the policy: of the pages that were asked for, cold_wanted, and of those
    that were loaded, cold_loaded, are of first steps. mandatory: the most pages that one step
    reads, over all layers and sequences; steps: how many there are.
    """

    pages: PageTrace
    mandatory: int
    steps: int
    cold_wanted: int
    cold_loaded: int

    @property
    def pages_wanted(self) -> int:
        """Pages that reads asked for, cold ones among them."""
        return sum(one.pages_N.numel() for one in self.pages.accesses if one.kind == "read")

    def hit_ratio(self, loaded: int) -> float:
        """The share of pages that no read or append had to load, from second steps on.

        An append that loads its page spares the read of the same step and layer a miss, and counts
        for one.
        """
        return 1 - (loaded - self.cold_loaded) / (self.pages_wanted - self.cold_wanted)


def decode_trace(trace: Trace, mapper: PartitionMapper, geometry: KVGeometry) -> DecodeTrace:
    """The decode steps of a trace on pages of `geometry`; ValueError where there are none.

    Layers that read everything are left out: no policy has a say there. Each request has page ids
    of its own, also where it took the slot of another.
    """
    reader = _DecodeReader(trace, mapper, geometry)
    with torch.inference_mode():
        trace.play(reader)
    if len(reader.step_pages) < 2:
        raise ValueError(
            f"trace.path holds {len(reader.step_pages)} decode steps, hit ratios take 2; record a "
            "longer one with task.max_new_tokens=64 protocol.ignore_stop=true trace=on"
        )
    return DecodeTrace(
        pages=PageTrace(tuple(reader.accesses), reader.table.num_pages),
        mandatory=max(reader.step_pages.values()),
        steps=len(reader.step_pages),
        cold_wanted=reader.cold_wanted,
        cold_loaded=reader.cold_loaded,
    )


@dataclass
class _DecodeReader:
    """A player that turns decode calls into accesses; sequences: the request in each slot."""

    trace: Trace
    mapper: PartitionMapper
    geometry: KVGeometry
    accesses: list[Access] = field(default_factory=list)
    step_pages: Counter[int] = field(default_factory=Counter)
    cold_wanted: int = 0
    cold_loaded: int = 0

    def __post_init__(self) -> None:
        header = self.trace.header
        self.table = PageTable(self.geometry, len(header.requests), header.max_tokens)
        self._sequences: dict[int, int] = {}
        self._first_step: dict[int, int] = {}
        self._begun = 0

    def begin(self, slot: int, uid: str) -> None:
        """See Player."""
        self._sequences[slot] = self._begun
        self._begun += 1

    def pause(self, slot: int) -> None:
        """See Player."""

    def resume(self, slot: int) -> None:
        """See Player."""

    def end_step(self, step: int) -> None:
        """See Player."""

    def end(self, slot: int) -> None:
        """See Player."""
        pages_N = self.table.pages_of_sequence(self._sequences.pop(slot))
        self.accesses.append(with_content("free", pages_N))

    def call(self, call: Call) -> None:
        """See Player."""
        is_warm_up = call.step < self.trace.header.measured_from
        if call.phase != "decode" or call.selection is None or is_warm_up:
            return
        sequences = tuple(self._sequences[slot] for slot in call.slots)
        batch = Batch(self.table, sequences, call.stored, 1)
        written_N = batch.write_pages(call.layer)
        fresh_N = batch.write_slots_N == 0
        rows = batch.query_rows(call.layer)
        layout = Layout(
            page_tokens=self.geometry.page_tokens,
            partition_size=self.trace.header.partition_size,
            dead_P=None,
        )
        read_N = self.mapper.to_pages(call.selection, rows, layout).pages_N
        self.accesses += (Access("write", written_N, fresh_N), with_content("read", read_N))
        self.step_pages[call.step] += read_N.numel()
        self._count_cold(call.step, sequences, read_N, written_N[fresh_N])

    def _count_cold(
        self, step: int, sequences: tuple[int, ...], read_N: Tensor, fresh_N: Tensor
    ) -> None:
        cold = [one for one in sequences if self._first_step.setdefault(one, step) == step]
        if not cold:
            return
        in_cold_N = torch.isin(self.table.sequences_of(read_N), torch.tensor(cold))
        self.cold_wanted += int(in_cold_N.sum())
        self.cold_loaded += int((in_cold_N & ~torch.isin(read_N, fresh_N)).sum())
