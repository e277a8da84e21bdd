"""Which tokens of each sequence are in clusters, and in which slots these clusters lie."""

from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.base import Rows, SlotRanges
from memory_tiers.page_table import PageTable
from memory_tiers.partition.clusters import ClusterMapper
from memory_tiers.tables.offsets import PartitionOffsets
from sparse_algos.selection import Clusters, Selection


class Covered(NamedTuple):
    """How far the clusters of a sequence reach in a layer: tokens 0 .. tokens - 1 wait for none."""

    tokens: int = 0
    partitions: int = 0


class ClusterLayout:
    """The clusters of every layer and row; sequences are known by their slot in the batch."""

    def __init__(self, mapper: ClusterMapper, table: PageTable, max_partitions: int) -> None:
        """No sequence has clusters."""
        self._mapper = mapper
        self._table = table
        self._page_tokens = table.geometry.page_tokens
        num_rows, device = table.geometry.num_layers * table.num_rows, table.geometry.device
        self._offsets = PartitionOffsets(num_rows, max_partitions, device)
        self._covered: dict[tuple[int, int], Covered] = {}
        self._own_pages_R = torch.zeros(num_rows, dtype=torch.int64, device=device)

    @property
    def num_bytes(self) -> int:
        """Bytes of the offset table and of what is kept beside it."""
        return sum(self._offsets.num_bytes().values()) + self._own_pages_R.nbytes

    def covered(self, layer: int, slot: int) -> Covered:
        """How far the clusters of a sequence reach."""
        return self._covered.get((layer, slot), Covered())

    def most_partitions(self, layer: int, slots: tuple[int, ...]) -> int:
        """The most clusters that any of these sequences has."""
        return max(self.covered(layer, slot).partitions for slot in slots)

    def add(self, layer: int, slot: int, tokens: range, sizes_KP: Tensor) -> Tensor:
        """Give slots to new clusters of `tokens`: the first slot of each, int64 [K, P]."""
        rows_K, size = self._index_rows(layer, slot), self._page_tokens
        first_KP = self._mapper.place(sizes_KP, size)
        if self._mapper.moves:
            last_K = (first_KP + sizes_KP).amax(dim=1)
            first_KP += ((self._table.token_pages + self._own_pages_R[rows_K]) * size).unsqueeze(1)
            self._own_pages_R[rows_K] += torch.div(last_K + size - 1, size, rounding_mode="trunc")
        else:
            first_KP += tokens.start
        before, count = self.covered(layer, slot).partitions, sizes_KP.shape[1]
        partition_P = torch.arange(before, before + count, device=rows_K.device)
        self._offsets.put(rows_K, partition_P.expand_as(sizes_KP), first_KP, sizes_KP)
        self._covered[layer, slot] = Covered(tokens.stop, before + count)
        return first_KP

    def clusters(self, layer: int, slots: tuple[int, ...], rows_R: Tensor) -> Clusters:
        """The clusters of these sequences; rows_R are their directory rows, kv heads innermost."""
        tokens = [self.covered(layer, slot).tokens for slot in slots]
        tokens_B = torch.tensor(tokens, device=rows_R.device)
        return Clusters(
            self._offsets.sizes(rows_R, self.most_partitions(layer, slots)),
            tokens_B.repeat_interleave(len(rows_R) // len(slots)),
        )

    def ranges(self, selection: Selection, rows: Rows, rows_R: Tensor) -> SlotRanges:
        """Slots of what is selected, ascending; rows_R: directory row of each query row."""
        assert selection.steady is not None and selection.valid_RC is not None
        chosen_RC = selection.partitions_RC.masked_fill(~selection.valid_RC, 0)
        chosen = self._offsets.read(rows_R, chosen_RC)
        clusters = (chosen.first_RC.long(), chosen.count_RC.long() * selection.valid_RC)
        sinks_R1, tail_R1 = (one.unsqueeze(1) for one in selection.steady)
        sinks = (torch.zeros_like(sinks_R1), sinks_R1)
        tail = (tail_R1, rows.num_tokens_R.unsqueeze(1) - tail_R1)
        parts = (sinks, tail, clusters) if self._mapper.moves else (sinks, clusters, tail)
        return SlotRanges(*(torch.cat(one, dim=1) for one in zip(*parts, strict=True)))

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        for layer in range(self._table.geometry.num_layers):
            if self._covered.pop((layer, slot), None) is not None:
                rows_K = self._index_rows(layer, slot)
                self._offsets.release(rows_K)
                self._own_pages_R[rows_K] = 0

    def _index_rows(self, layer: int, slot: int) -> Tensor:
        slots_1 = torch.tensor([slot], device=self._own_pages_R.device)
        return self._table.rows_of(slots_1) + layer * self._table.num_rows
