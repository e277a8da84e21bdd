"""Drives a cache manager over a recorded trace: the same writes and reads in the same order.

What `PagedAttention` asks of its memory is asked again, without a model, a kernel or scores. Pages
hold zeros; their copies are real.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from backends.batch import Batch
from memory_tiers.base import KVGeometry, Layout, PageSelection, PartitionMapper, ReadyPages
from memory_tiers.counters import Counters
from memory_tiers.page_table import PageTable
from memory_tiers.sharing import Sharing
from memory_tiers.trace import Call, TraceHeader


class Memory(Protocol):
    """What a replay asks of a cache manager."""

    geometry: KVGeometry
    table: PageTable
    sharing: Sharing | None

    @property
    def counters(self) -> Counters:
        """What happened since the last reset."""

    @counters.setter
    def counters(self, counters: Counters) -> None: ...

    @property
    def num_fast_frames(self) -> int:
        """Pages that the fast tier holds."""

    def waves(self, num_pages: int) -> Iterator[tuple[int, int]]:
        """Parts of a selection that the fast tier holds in turn."""

    def write(
        self,
        pages_N: Tensor,
        slots_N: Tensor,
        key_ND: Tensor,
        value_ND: Tensor,
        *,
        shared: bool = True,
    ) -> None:
        """Store keys and values in slots of pages."""

    def fetch(self, wanted_N: Tensor, *, mandatory: bool = False) -> ReadyPages:
        """Make pages resident, and count hits; mandatory: of a decode step."""

    def prefetch(self, wanted_N: Tensor, keep_N: Tensor) -> None:
        """Start to load pages while frames `keep_N` are read."""

    def begin(self, slot: int) -> None:
        """A sequence takes this slot."""

    def release(self, slot: int) -> None:
        """Forget a sequence."""

    def end_step(self) -> None:
        """All layers of a forward pass are through."""


class Replayer:
    """A player that hands on to a memory; counts as the recorded run did, from its warm-up on."""

    def __init__(
        self,
        header: TraceHeader,
        memory: Memory,
        mapper: PartitionMapper,
        *,
        prefetch: bool = False,
    ) -> None:
        """Take hold of an empty memory with the room that the trace needs."""
        self._header = header
        self._memory = memory
        self._mapper = mapper
        self._zero_D = torch.zeros(1, memory.geometry.head_dim, dtype=memory.geometry.dtype)
        self._zero_D = self._zero_D.to(memory.geometry.device)
        self._counted = -1
        self._prefetch = prefetch
        self._last_pages: dict[int, Tensor] = {}

    def begin(self, slot: int, uid: str) -> None:
        """See Player."""
        self._memory.begin(slot)

    def pause(self, slot: int) -> None:
        """See Player."""
        if self._memory.sharing is not None:
            self._memory.sharing.pause(slot, self._memory.num_fast_frames)

    def resume(self, slot: int) -> None:
        """See Player."""
        self._memory.begin(slot)

    def call(self, call: Call) -> None:
        """See Player."""
        memory = self._memory
        self._count_step(call)
        memory.counters.enter(call.phase)
        if call.layer == 0:
            memory.counters.current.steps += 1
            memory.counters.current.rows += len(call.slots) * call.new
        batch = Batch(memory.table, call.slots, call.stored, call.new)
        slots_N = batch.write_slots_N
        zero_ND = self._zero_D.expand(len(slots_N), -1)
        pages_N = batch.write_pages(call.layer)
        memory.write(pages_N, slots_N, zero_ND, zero_ND, shared=call.new > 1)
        if call.selection is None and call.phase != "decode":
            self._read_past(call, batch)
        else:
            self._read_rows(call, batch)

    def end_step(self, step: int) -> None:
        """See Player."""
        self._memory.end_step()

    def end(self, slot: int) -> None:
        """See Player."""
        self._memory.release(slot)

    def _count_step(self, call: Call) -> None:
        if call.step == self._counted:
            return
        if call.step >= self._header.measured_from > self._counted:
            self._memory.counters = Counters()
        self._counted = call.step

    def _read_past(self, call: Call, batch: Batch) -> None:
        """What a dense chunk reads of the pages before it, as `ChunkAttention` does."""
        memory, window = self._memory, self._window(call)
        size, before = memory.geometry.page_tokens, batch.longest - batch.new
        first = 0 if window is None else max(0, before - window + 1) // size
        last = -(-before // size)
        step = max(1, memory.num_fast_frames // memory.geometry.num_kv_heads)
        for start in range(first, last, step):
            pages_KP = batch.pages(call.layer, start, min(start + step, last))
            self._count_read(pages_KP.numel(), 0, 0)
            memory.fetch(pages_KP.flatten())

    def _read_rows(self, call: Call, batch: Batch) -> None:
        """What rows read of their selections, as `PagedAttention.sparse` does."""
        pages, shared = self._pages(call, batch), call.new > 1
        num_pages = pages.pages_N.numel()
        self._count_read(num_pages, pages.wanted, batch.slots_context)
        if call.selection is not None and not shared:
            frames_N = self._memory.fetch(pages.pages_N, mandatory=True).frames_N
            self._prefetch_next(call.layer, pages.pages_N, frames_N)
            return
        for start, stop in self._memory.waves(num_pages):
            wanted_N = pages.pages_N[start:stop]
            if shared:
                self._memory.fetch(wanted_N.unique())
            else:
                self._memory.fetch(wanted_N, mandatory=True)

    def _prefetch_next(self, layer: int, pages_N: Tensor, frames_N: Tensor) -> None:
        if not self._prefetch:
            return
        self._last_pages[layer] = pages_N
        predicted_N = self._last_pages.get(layer + 1)
        if predicted_N is not None:
            self._memory.prefetch(predicted_N, frames_N)

    def _pages(self, call: Call, batch: Batch) -> PageSelection:
        if call.selection is None:
            return batch.every_page(call.layer, self._window(call))
        rows = batch.query_rows(call.layer)
        layout = Layout(
            page_tokens=self._memory.geometry.page_tokens,
            partition_size=self._header.partition_size,
            dead_P=None,
        )
        return self._mapper.to_pages(call.selection, rows, layout)

    def _window(self, call: Call) -> int | None:
        return self._header.windows.get(str(call.layer))

    def _count_read(self, num_pages: int, wanted: int, context: int) -> None:
        count = self._memory.counters.current
        count.pages_read += num_pages
        count.bytes_read += num_pages * self._memory.geometry.page_bytes
        count.slots_wanted += wanted
        count.slots_context += context
