"""Eviction: what an evictor sees, when it acts, and what becomes of the pages."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backends.batch import Batch, SlotsInUse
from backends.index import Index
from backends.received import Queries, received_in_chunk, received_in_rows
from backends.slot_scores import SlotScores
from memory_tiers.base import KVGeometry, PageSelection, Rows
from memory_tiers.compaction import Survivors, compact
from memory_tiers.manager import CacheManager
from memory_tiers.row_slots import RowSlots
from sparse_algos.evictor import Evictor, Held

# Pages of a row that may stand empty for dead slots before its tokens move together.
SLACK_PAGES = 4


@dataclass(frozen=True)
class _Cut:
    """Sequences whose rows hold too much: room_B, tokens that a row of each may keep."""

    layer: int
    slots: tuple[int, ...]
    rows_R: Tensor
    room_B: tuple[int, ...]
    coming: int


class Eviction:
    """Frees what the evictor drops, on the layers that it serves.

    At the end of a context, right after the attention of each layer, and before each later step if
    the evictor goes on. Dropped slots are dead at first; rows with many of them are compacted.
    """

    def __init__(
        self, evict: Evictor, memory: CacheManager, layers: Sequence[int], index: Index | None
    ) -> None:
        """No sequence is there; layers: those served, ascending."""
        self.evict = evict
        self.slots = RowSlots(memory.table)
        self.scores = SlotScores(memory.table) if evict.sees != "nothing" else None
        self._memory = memory
        self._index = index
        self._place = {layer: place for place, layer in enumerate(layers)}

    @property
    def peak_bytes(self) -> int:
        """Most bytes that were taken at one time, beside the pages."""
        counts = self.slots.used_LR.nbytes + self.slots.shared_LR.nbytes
        return counts if self.scores is None else counts + self.scores.peak_bytes

    def in_slots(self, layer: int, batch: Batch) -> Batch:
        """The step, where what a row has in use stands for the tokens of its sequence."""
        used_R = self.slots.used_LR[layer, batch.rows_R]
        least = self.slots.least(layer, batch.slots)
        in_use = SlotsInUse(used_R, least, batch.slots_context)
        return batch.in_slots(self.slots.most(layer, batch.slots), in_use)

    def make_room(self, layer: int, batch: Batch) -> None:
        """Drop what a step would push over the budget, before it appends."""
        if not self.evict.decodes:
            return
        room_B = tuple(self._most(layer, before + batch.new) - batch.new for before in batch.stored)
        most_B = self.slots.most(layer, batch.slots)
        over = max(most - room for most, room in zip(most_B, room_B, strict=True))
        if over <= 0:
            return
        cut = _Cut(layer, batch.slots, batch.rows_R, room_B, batch.new)
        rows = self._rows(cut)
        keep_RT = self._keep(cut, rows)
        if over > SLACK_PAGES * self._memory.geometry.page_tokens:
            self._compact(cut, rows, keep_RT)
        else:
            self._memory.drop_slots(rows, keep_RT)

    def stored(self, layer: int, batch: Batch, key_ND: Tensor) -> None:
        """Rows took new tokens, whose keys these are, rows outermost; the batch is in slots."""
        in_use = self.slots.most(layer, batch.slots)
        assert in_use == batch.stored, f"stored at {batch.stored}, {in_use} slots are in use"
        self.slots.grow(layer, batch.slots, batch.rows_R, batch.new)
        if self.scores is None:
            return
        slots_RM = batch.positions_RM
        scores_N = torch.zeros_like(key_ND[:, 0], dtype=torch.float32)
        if self.evict.sees == "keys":
            scores_N = self.evict.score_keys(key_ND)
        scores_RM = scores_N.view(slots_RM.shape)
        self.scores.put(layer, batch.rows_R, slots_RM, scores_RM, batch.longest)

    def after_chunk(
        self, layer: int, batch: Batch, query_MHD: Tensor, key_MKD: Tensor, scale: float
    ) -> None:
        """A dense chunk of a context was attended, and may have been the last."""
        window = self.evict.window
        if self.evict.sees == "attention" and (batch.ends_context or window is None):
            mass_KGT = received_in_chunk(
                self._memory, layer, batch, query_MHD, key_MKD, scale, window
            )
            self._receive(layer, batch, mass_KGT)
        if batch.ends_context:
            self._end_context(layer, batch)

    def after_rows(self, layer: int, batch: Batch, pages: PageSelection, queries: Queries) -> None:
        """Rows of the sparse path read all that is left; the batch is in slots."""
        if self.evict.sees == "attention" and self.evict.decodes:
            mass_RGT = received_in_rows(
                self._memory, layer, batch, pages, queries, self.evict.window
            )
            self._receive(layer, batch, mass_RGT)

    def rewind(self, layer: int, slot: int) -> None:
        """What is left of the context that is asked again stays, side by side; the rest goes."""
        table = self._memory.table
        rows_K = table.rows_of(torch.tensor([slot], device=table.device))
        cut = _Cut(layer, (slot,), rows_K, (0,), 0)
        rows = self._rows(cut)
        keep_KT = table.live_slots(rows)
        self._compact(cut, rows, keep_KT & self._shared(cut, keep_KT))

    def peak_pages(self, context: int, total: int, *, whole: bool) -> int:
        """Pages that a request takes at most; see `peak_pages`."""
        geometry = self._memory.geometry
        return peak_pages(self.evict, geometry, len(self._place), (context, total), whole=whole)

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        self.slots.release(slot)
        if self.scores is not None:
            table = self._memory.table
            self.scores.clear(table.rows_of(torch.tensor([slot], device=table.device)))

    def _end_context(self, layer: int, batch: Batch) -> None:
        self.slots.shared_LR[layer, batch.rows_R] = batch.shared
        room = self._most(layer, batch.longest)
        if batch.longest <= room:
            return
        cut = _Cut(layer, batch.slots, batch.rows_R, (room,), 0)
        rows = self._rows(cut)
        self._compact(cut, rows, self._keep(cut, rows))

    def _most(self, layer: int, context: int) -> int:
        return self.evict.most_tokens(context, self._place[layer], len(self._place))

    def _rows(self, cut: _Cut) -> Rows:
        used_R = self.slots.used_LR[cut.layer, cut.rows_R]
        first_R = self._memory.table.first_page(cut.layer, cut.rows_R)
        return Rows(first_R, used_R, max(self.slots.most(cut.layer, cut.slots)))

    def _keep(self, cut: _Cut, rows: Rows) -> Tensor:
        live_RT = self._memory.table.live_slots(rows)
        num_heads = self._memory.geometry.num_kv_heads
        room_B = torch.tensor(cut.room_B, dtype=torch.int64, device=live_RT.device)
        scores_RT = None
        if self.scores is not None:
            scores_RT = self.scores.read(cut.layer, cut.rows_R, live_RT.shape[1])
        room_R = room_B.repeat_interleave(num_heads)
        return self.evict.keep(
            Held(
                live_RT=live_RT,
                scores_RT=scores_RT,
                room_R=room_R,
                coming=cut.coming,
                num_heads=num_heads,
            )
        )

    def _shared(self, cut: _Cut, like_RT: Tensor) -> Tensor:
        """Slots of a context that is asked again, bool [R, T]."""
        slot_T = torch.arange(like_RT.shape[1], device=like_RT.device)
        return slot_T < self.slots.shared_LR[cut.layer, cut.rows_R].unsqueeze(1)

    def _receive(self, layer: int, batch: Batch, mass_RGT: Tensor) -> None:
        assert self.scores is not None
        old_RT = self.scores.read(layer, batch.rows_R, mass_RGT.shape[2])
        heads = self._memory.geometry.num_kv_heads
        self.scores.write(layer, batch.rows_R, self.evict.received(old_RT, mass_RGT, heads))

    def _compact(self, cut: _Cut, rows: Rows, keep_RT: Tensor) -> None:
        shared_RT = keep_RT & self._shared(cut, keep_RT)
        left = compact(self._memory, rows, keep_RT)
        self.slots.shared_LR[cut.layer, cut.rows_R] = shared_RT.sum(dim=1)
        self.slots.set(cut.layer, cut.slots, cut.rows_R, left.used_R)
        longest = max(self.slots.most(cut.layer, cut.slots))
        if self.scores is not None:
            old_RT = self.scores.read(cut.layer, cut.rows_R, keep_RT.shape[1])
            moved_RT = old_RT.new_zeros(len(old_RT), longest)
            moved_RT[left.row_N, left.slot_N] = old_RT[keep_RT]
            width = self.slots.widest(cut.layer)
            self.scores.replace(cut.layer, cut.rows_R, moved_RT, width)
        if self._index is not None:
            self._index.restart(cut.layer, cut.rows_R, *_side_by_side(left, longest))


def _side_by_side(left: Survivors, longest: int) -> tuple[Tensor, Tensor]:
    """Keys of each row, and which of them there are: [R, T, D] and bool [R, T]."""
    key_RTD = left.key_ND.new_zeros(len(left.used_R), longest, left.key_ND.shape[1])
    key_RTD[left.row_N, left.slot_N] = left.key_ND
    slot_T = torch.arange(longest, device=key_RTD.device)
    return key_RTD, slot_T < left.used_R.unsqueeze(1)


def peak_pages(
    evict: Evictor, geometry: KVGeometry, served: int, tokens: tuple[int, int], *, whole: bool
) -> int:
    """Pages that a request takes at most, where an evictor serves `served` of the layers.

    tokens: of the context, and of the whole request; whole: whether the context is read in one
    pass, so that at most one layer is full at any time.
    """
    context, total = tokens
    full = geometry.num_kv_heads * -(-total // geometry.page_tokens)
    everything = geometry.num_layers * full
    if not whole:
        return everything
    held = [
        min(full, _row_pages(evict, geometry, place, served, tokens) * geometry.num_kv_heads)
        for place in range(served)
    ]
    unserved = (geometry.num_layers - served) * full
    while_reading = geometry.num_kv_heads * -(-context // geometry.page_tokens)
    return min(everything, unserved + max(sum(held), sum(held) - min(held) + while_reading))


def _row_pages(
    evict: Evictor, geometry: KVGeometry, place: int, served: int, tokens: tuple[int, int]
) -> int:
    """Pages of a row after the context: budgets that heads share out take one more."""
    context, total = tokens
    if evict.decodes:
        most = evict.most_tokens(total, place, served)
        return -(-most // geometry.page_tokens) + SLACK_PAGES + 1
    most = evict.most_tokens(context, place, served) + total - context
    return -(-most // geometry.page_tokens) + 1
