"""Working sets: how many pages each sequence used lately (Denning, 1968; SparseServe, section 3.4).

The working set of a sequence is the union of the pages it asked for in its last `window` steps.
Counting the latest use of each page is enough: a page leaves the set when its latest use falls out.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from memory_tiers.native import Entry, load_entry
from memory_tiers.page_table import PageTable
from memory_tiers.tables.column import PagedColumn

LONG_AGO = -(2**30)
SOURCE = Path(__file__).with_name("working_set.cpp")
ARGUMENTS = (
    ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 4,
)  # fmt: skip


class WorkingSets:
    """Sizes of working sets, exact, at a cost that follows the pages used."""

    def __init__(self, table: PageTable, window: int) -> None:
        """Nobody used anything yet."""
        device = table.device
        self._table = table
        self._window = window
        self._now = 0
        self._latest = PagedColumn(table.num_pages, torch.int32, LONG_AGO, device)
        self._compiled = compiled_use() if device.type == "cpu" else None
        self._latest_WB = torch.zeros(window, table.num_sequences, dtype=torch.int64, device=device)

    @property
    def sizes_B(self) -> Tensor:
        """Pages in the working set of each sequence slot, int64 [B]."""
        return self._latest_WB.sum(0)

    def use(self, pages_N: Tensor) -> None:
        """These pages, each named once, are used in this step."""
        if self._compiled is None:
            self.use_by_torch(pages_N)
        elif not self._use_compiled(pages_N.contiguous()):
            self._latest.reserve(pages_N)
            assert self._use_compiled(pages_N.contiguous())

    def use_by_torch(self, pages_N: Tensor) -> None:
        """What `use` does, on any device: the oracle of the compiled way."""
        owner_N = self._table.sequences_of(pages_N)
        latest_N = self._latest.read(pages_N)
        cell_N = latest_N.long() % self._window * self._latest_WB.shape[1] + owner_N
        known_N = (latest_N > self._now - self._window).long()
        counts = self._latest_WB.view(-1)
        counts.index_add_(0, cell_N, -known_N)
        self._latest_WB[self._now % self._window].index_add_(0, owner_N, torch.ones_like(owner_N))
        self._latest.write(pages_N, torch.full_like(latest_N, self._now))

    def _use_compiled(self, pages_N: Tensor) -> bool:
        """The same in one pass; False, and nothing done, where a page has no segment yet."""
        assert self._compiled is not None
        column, table = self._latest.view(), self._table
        missing = self._compiled(
            pages_N.data_ptr(),
            pages_N.numel(),
            column.directory_G.data_ptr(),
            column.pool_NE.data_ptr(),
            self._latest_WB.data_ptr(),
            self._now,
            self._window,
            table.pages_per_row * table.geometry.num_kv_heads,
            table.num_sequences,
        )
        return missing == 0

    def end_step(self) -> None:
        """The next step begins; what was last used `window` steps ago leaves the sets."""
        self._now += 1
        self._latest_WB[self._now % self._window] = 0

    def forget(self, slot: int) -> None:
        """The sequence is gone."""
        self._latest_WB[:, slot] = 0
        self._latest.release(self._table.pages_of_sequence(slot))


def compiled_use() -> Entry | None:
    """The pass in C++; None where there is no compiler, and torch counts instead."""
    return load_entry(SOURCE, "use_pages", ARGUMENTS)
