"""What a step appends and for whom, worked out once and shared by all layers."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.base import PageSelection, Rows
from memory_tiers.page_table import PageTable
from memory_tiers.partition.every_page import every_page
from sparse_algos.selection import Selection, Visible


class Led(NamedTuple):
    """What a layer selected for others; pages are those of this layer."""

    layer: int
    partitions: Selection
    pages: PageSelection


@dataclass(frozen=True)
class SlotsInUse:
    """Where rows of a layer go on when evictions moved their tokens together.

    used_R: int64 [R], slots in use before the step; least: by sequence, those that every head has;
    slots_context: see Batch.
    """

    used_R: Tensor
    least: tuple[int, ...]
    slots_context: int


@dataclass(frozen=True)
class Batch:
    """Sequences that each append `new` tokens: decode rows (new = 1) or a chunk of one sequence.

    slots: sequence slots; stored: tokens that each of them held before; ends_context: whether the
    chunk is the last one before the question, or before the answer; shared: leading tokens of a
    chunk's sequence that later requests share, 0 where none follows; follows: whether the chunk
    comes after a context that has ended; in_use: see `in_slots`; led: what the last layer that
    selects for others selected, if one did.
    """

    table: PageTable
    slots: tuple[int, ...]
    stored: tuple[int, ...]
    new: int
    ends_context: bool = False
    shared: int = 0
    follows: bool = False
    in_use: SlotsInUse | None = None
    led: list[Led] = field(default_factory=list, repr=False)
    _dense: dict[int | None, PageSelection] = field(default_factory=dict, repr=False)

    def in_slots(self, most: tuple[int, ...], in_use: SlotsInUse) -> "Batch":
        """The step on one layer whose rows hold less than their sequences have tokens.

        Wherever the batch speaks of tokens, it then means slots in use; most: those of the head
        that has the most, by sequence.
        """
        return replace(self, stored=most, in_use=in_use, _dense={})

    @property
    def is_even(self) -> bool:
        """Whether the host knows that all heads of a sequence have as many slots in use."""
        return self.in_use is None or self.in_use.least == self.stored

    @property
    def longest(self) -> int:
        """The most tokens that any sequence holds afterwards."""
        return max(self.stored) + self.new

    @property
    def ends_shared(self) -> bool:
        """Whether the chunk's sequence now holds what later requests share, and no more."""
        return 0 < self.shared == self.longest

    @cached_property
    def rows_R(self) -> Tensor:
        """Rows of the page table, kv heads innermost, int64 [R = B * K]."""
        return self.table.rows_of(self._tensor(self.slots))

    def index_rows(self, layer: int) -> Tensor:
        """The same rows as the summary store numbers them, a row per layer, int64 [R]."""
        return self.rows_R + layer * self.table.layer_rows

    @cached_property
    def stored_R(self) -> Tensor:
        """Tokens that each row held before, int64 [R]."""
        if self.in_use is not None:
            return self.in_use.used_R
        return self._tensor(self.stored).repeat_interleave(self.table.geometry.num_kv_heads)

    def starts_any(self, num_tokens: int) -> bool:
        """Whether a new token is the first of a run of `num_tokens`, counted from the start."""
        if not self.is_even:
            return True
        return any(
            before % num_tokens + self.new > num_tokens or before % num_tokens == 0
            for before in self.stored
        )

    @cached_property
    def positions_RM(self) -> Tensor:
        """Where each new token is stored, int64 [R, M]."""
        return self.stored_R.unsqueeze(1) + torch.arange(self.new, device=self.stored_R.device)

    def write_pages(self, layer: int) -> Tensor:
        """Id of the page that each new token goes to, int64 [R * M]."""
        return self._written_N + self._offset(layer)

    @cached_property
    def write_slots_N(self) -> Tensor:
        """Slot in that page, int64 [R * M]."""
        return (self.positions_RM % self.table.geometry.page_tokens).flatten()

    def pages(self, layer: int, start: int, stop: int) -> Tensor:
        """Ids of pages start .. stop - 1 of each row, int64 [R, stop - start]."""
        first_R1 = self.table.first_page(layer, self.rows_R).unsqueeze(1)
        return first_R1 + torch.arange(start, stop, device=first_R1.device)

    def stored_rows(self, layer: int) -> Rows:
        """The rows as they were before the step, R of them."""
        return Rows(
            self.table.first_page(layer, self.rows_R), self.stored_R, self.longest - self.new
        )

    def query_rows(self, layer: int, window: int | None = None) -> Rows:
        """One row per query token, which sees itself and what came before: R * M of them.

        window: tokens in a row's sight, itself included; None for all.
        """
        first_page_N = self._first_page_N + self._offset(layer)
        first_token_N = None if window is None else self._seen_N - window
        return Rows(first_page_N, self._seen_N, self.longest, first_token_N)

    def every_page(self, layer: int, window: int | None) -> PageSelection:
        """What dense attention reads; worked out for one layer, moved to the others."""
        size = self.table.geometry.page_tokens
        if self.table.dead_P is not None:
            return every_page(self.query_rows(layer, window), size, self.table.dead_P)
        if window not in self._dense:
            self._dense[window] = every_page(self.query_rows(0, window), size, None)
        pages = self._dense[window]
        moved_N = pages.pages_N + self._offset(layer)
        return PageSelection(pages.indptr_R1, moved_N, pages.live_N, pages.wanted)

    def led_to(self, layer: int) -> Led:
        """What the last leader selected, as a layer behind it reads it; nothing was evicted."""
        assert self.led, "no layer has selected yet"
        led = self.led[-1]
        if led.layer == layer:
            return led
        moved_N = led.pages.pages_N + self._offset(layer) - self._offset(led.layer)
        return Led(layer, led.partitions, replace(led.pages, pages_N=moved_N))

    @cached_property
    def slots_context(self) -> int:
        """Slots that dense attention reads in one layer, had nothing been evicted."""
        if self.in_use is not None:
            return self.in_use.slots_context
        own = self.new * (self.new + 1) // 2
        return self.table.geometry.num_kv_heads * sum(self.new * n + own for n in self.stored)

    @cached_property
    def visible(self) -> Visible:
        """What the query rows see where no slot is dead; the same in all layers."""
        return Visible(
            self._seen_N,
            self.longest,
            shortest=min(self.stored if self.in_use is None else self.in_use.least) + 1,
            num_kv_heads=self.table.geometry.num_kv_heads,
            num_queries=self.new,
        )

    def visible_where(self, alive_RP: Tensor) -> Visible:
        """The same where partitions were evicted: those hold a token that are alive."""
        return Visible(
            self._seen_N,
            self.longest,
            alive_RP,
            num_kv_heads=self.table.geometry.num_kv_heads,
            num_queries=self.new,
        )

    @cached_property
    def _first_page_N(self) -> Tensor:
        return self.table.first_page(0, self.rows_R).repeat_interleave(self.new)

    @cached_property
    def _seen_N(self) -> Tensor:
        return (self.positions_RM + 1).flatten()

    @cached_property
    def _written_N(self) -> Tensor:
        page_RM = self.positions_RM // self.table.geometry.page_tokens
        return (self.table.first_page(0, self.rows_R).unsqueeze(1) + page_RM).flatten()

    def _tensor(self, values: tuple[int, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.table.device)

    def _offset(self, layer: int) -> int:
        return layer * self.table.layer_rows * self.table.pages_per_row
