"""From new keys to the summaries of partitions: SPIN's Index, as tokens arrive."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from backends.batch import Batch
from backends.query_tail import QueryTail
from memory_tiers.base import prefix_bits
from memory_tiers.manager import CacheManager
from memory_tiers.summary_store import SEGMENT, SummaryStore
from sparse_algos.index_data import Keys, NewKeys, Summaries
from sparse_algos.retriever import Retriever


class Arrived(NamedTuple):
    """What a batch's new tokens bring, rows outermost, tokens next: N = R * M.

    key_ND, value_ND; query_NGD.
    """

    key_ND: Tensor
    value_ND: Tensor
    query_NGD: Tensor


class _Stretch(NamedTuple):
    """Keys of consecutive tokens of all kv heads of a sequence, and which are still there."""

    key_KTD: Tensor
    held_KT: Tensor


class Shared(NamedTuple):
    """What later tokens of a sequence overwrite, as it was at the end of a shared context.

    last: its last partition, None where none is summarised before it is whole; ring_KWD: its last
    queries, if kept.
    """

    last: Summaries | None
    ring_KWD: Tensor | None


class Summariser:
    """Keeps the summaries of a retriever's partitions up to date."""

    def __init__(self, retrieve: Retriever, store: SummaryStore, memory: CacheManager) -> None:
        """Join the parts."""
        self._retrieve = retrieve
        self._store = store
        self._memory = memory
        self._page_tokens = memory.geometry.page_tokens
        self._queries = None
        if retrieve.needs_queries:
            assert retrieve.waits is not None
            self._queries = QueryTail(memory.table, retrieve.waits + retrieve.partition_size)
        self._shared: dict[tuple[int, int], Shared] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes beside the summaries."""
        return 0 if self._queries is None else self._queries.num_bytes

    def update(self, layer: int, batch: Batch, arrived: Arrived) -> None:
        """Summarise new keys, which are in their pages already."""
        if self._queries is not None:
            self._queries.add(layer, batch, arrived.query_NGD)
        if self._retrieve.waits is None:
            self._fold(layer, batch, arrived.key_ND)
        else:
            self._complete(layer, batch, self._retrieve.waits)
        if self._queries is not None:
            self._queries.keep(layer, batch)
        if batch.ends_shared:
            self._share(layer, batch)

    def rewind(self, layer: int, slot: int, num_tokens: int) -> None:
        """A sequence has only the tokens of its shared context, so many."""
        rows_K, shared = self._index_rows(layer, slot), self._shared[layer, slot]
        if shared.last is not None:
            self._store.write(rows_K, self._last(rows_K, num_tokens), shared.last)
        if self._queries is not None and shared.ring_KWD is not None:
            self._queries.put_back(rows_K, shared.ring_KWD)

    def release(self, layer: int, slot: int) -> None:
        """Forget a layer of a sequence."""
        self._shared.pop((layer, slot), None)

    def _share(self, layer: int, batch: Batch) -> None:
        """Keep what will be overwritten; the host knows that all heads have as many tokens."""
        rows_K = batch.index_rows(layer)
        last = None
        if self._retrieve.waits is None:
            last = self._store.read_at(rows_K, self._last(rows_K, batch.longest))
        ring_KWD = None if self._queries is None else self._queries.of(rows_K)
        self._shared[layer, batch.slots[0]] = Shared(last, ring_KWD)

    def _last(self, rows_K: Tensor, num_tokens: int) -> Tensor:
        """The last partition of rows of so many tokens."""
        return torch.full_like(rows_K, (num_tokens - 1) // self._retrieve.partition_size)

    def _index_rows(self, layer: int, slot: int) -> Tensor:
        table = self._memory.table
        rows_K = table.rows_of(torch.tensor([slot], device=table.device))
        return rows_K + layer * table.num_rows

    def _fold(self, layer: int, batch: Batch, key_ND: Tensor) -> None:
        """Every token counts from the moment that it is there."""
        size = self._retrieve.partition_size
        rows_R = batch.index_rows(layer)
        if batch.starts_any(size * SEGMENT):
            last_R = torch.div(batch.stored_R + batch.new - 1, size, rounding_mode="trunc")
            self._store.reserve(rows_R, -(-batch.longest // size), last_R + 1)
        if batch.new > 1 and batch.is_even:
            before = batch.longest - batch.new
            self._build(layer, batch, before // size, -(-batch.longest // size))
            return
        key_RMD = key_ND.unflatten(0, (len(rows_R), -1))
        for slot_R, key_RD in zip(batch.positions_RM.unbind(1), key_RMD.unbind(1), strict=True):
            partition_R = slot_R // size
            new = NewKeys(key_RD, slot_R % size, layer)
            grown = self._retrieve.append(self._store.read_at(rows_R, partition_R), new)
            self._store.write(rows_R, partition_R, grown)

    def _complete(self, layer: int, batch: Batch, waits: int) -> None:
        """A partition is summarised at once, when it is whole and `waits` tokens follow it."""
        size = self._retrieve.partition_size
        if batch.new > 1 and batch.is_even:
            first = max(0, batch.longest - batch.new - waits) // size
            last = max(0, batch.longest - waits) // size
            if last > first:
                self._store.reserve(batch.index_rows(layer), last)
                self._build(layer, batch, first, last)
            return
        if batch.is_even and not any(_ends(stored + 1 - waits, size) for stored in batch.stored):
            return
        for nth in range(batch.new):
            done_R = batch.positions_RM[:, nth] + 1 - waits
            due_N = ((done_R > 0) & (done_R % size == 0)).nonzero().squeeze(1)
            if len(due_N):
                self._build_last(layer, batch, due_N, done_R[due_N] // size - 1)

    def restart(self, layer: int, rows_R: Tensor, key_RTD: Tensor, live_RT: Tensor) -> None:
        """Summarise rows anew, from all that they hold: bool [R, T] says which keys are there."""
        assert self._queries is None, "the queries of what was moved are gone"
        size = self._retrieve.partition_size
        missing = -key_RTD.shape[1] % size
        keys_RPSD = pad(key_RTD, (0, 0, 0, missing)).unflatten(1, (-1, size))
        live_RPS = pad(live_RT, (0, missing)).unflatten(1, (-1, size))
        count_R = live_RPS.any(dim=2).sum(dim=1)
        if self._retrieve.waits is not None:
            count_R = (live_RT.sum(dim=1) - self._retrieve.waits).clamp(min=0) // size
        index_rows_R = rows_R + layer * self._memory.table.num_rows
        self._store.reserve(index_rows_R, keys_RPSD.shape[1], count_R)
        first_R = torch.zeros_like(count_R)
        built = self._retrieve.build(Keys(keys_RPSD, live_RPS, first_R, layer))
        there_RP = torch.arange(keys_RPSD.shape[1], device=count_R.device) < count_R.unsqueeze(1)
        row_N, partition_N = there_RP.nonzero(as_tuple=True)
        found = {name: one[row_N, partition_N] for name, one in built.items()}
        self._store.write(index_rows_R[row_N], partition_N, found)

    def _build(self, layer: int, batch: Batch, first: int, last: int) -> None:
        """Summarise partitions first .. last - 1 of one sequence, from its pages."""
        size = self._retrieve.partition_size
        key_KTD, held_KT = self._stretch(layer, batch, first * size)
        missing = max(0, (last - first) * size - key_KTD.shape[1])
        tokens = slice(0, (last - first) * size)
        keys_KPSD = pad(key_KTD[:, tokens], (0, 0, 0, missing)).unflatten(1, (-1, size))
        live_KPS = pad(held_KT[:, tokens], (0, missing)).unflatten(1, (-1, size))
        first_K = torch.full((len(keys_KPSD),), first, device=keys_KPSD.device)
        query_KTD = None if self._queries is None else self._queries.since(layer, first * size)
        rows_K = batch.index_rows(layer)
        self._write(rows_K, Keys(keys_KPSD, live_KPS, first_K, layer, query_KTD))

    def _build_last(self, layer: int, batch: Batch, due_N: Tensor, first_N: Tensor) -> None:
        """Summarise one partition of some rows of a batch, whose last token has come."""
        size, page = self._retrieve.partition_size, self._page_tokens
        rows_N = batch.index_rows(layer)[due_N]
        token_NS = first_N.unsqueeze(1) * size + torch.arange(size, device=rows_N.device)
        first_page_N1 = self._memory.table.first_page(layer, batch.rows_R[due_N]).unsqueeze(1)
        pages_NS, slots_NS = first_page_N1 + token_NS // page, token_NS % page
        held_NS = self._held(pages_NS, slots_NS)
        self._memory.fetch(pages_NS[held_NS].unique())
        frames_NS = self._memory.frames(pages_NS).masked_fill(~held_NS, 0)
        key_NSD = self._memory.pool_FPSD[frames_NS, 0, slots_NS]
        query_NTD = None if self._queries is None else self._queries.last(layer, batch)[due_N]
        self._store.reserve(rows_N, int(first_N.max()) + 1, first_N + 1)
        keys = Keys(key_NSD.unsqueeze(1), held_NS.unsqueeze(1), first_N, layer, query_NTD)
        self._write(rows_N, keys)

    def _write(self, rows_R: Tensor, keys: Keys) -> None:
        built = self._retrieve.build(keys)
        num_partitions = keys.key_RPSD.shape[1]
        nth_P = torch.arange(num_partitions, device=rows_R.device)
        partition_N = (keys.first_R.unsqueeze(1) + nth_P).flatten()
        flat = {name: one.flatten(0, 1) for name, one in built.items()}
        self._store.write(rows_R.repeat_interleave(num_partitions), partition_N, flat)

    def _held(self, pages_N: Tensor, slots_N: Tensor) -> Tensor:
        """Which slots were not evicted for good."""
        if (dead_P := self._memory.table.dead_P) is None:
            return torch.ones_like(pages_N, dtype=torch.bool)
        return (dead_P[pages_N] >> slots_N & 1) == 0

    def _stretch(self, layer: int, batch: Batch, start: int) -> _Stretch:
        """Keys from token `start` on.

        The pages of the chunk are in the fast tier; those before it may have left it, or the
        memory for good.
        """
        page, stop, table = self._page_tokens, batch.longest, self._memory.table
        pages_KP = batch.pages(layer, start // page, -(-stop // page))
        there_KP = torch.ones_like(pages_KP, dtype=torch.bool)
        if table.dead_P is not None:
            there_KP = (~table.dead_P[pages_KP] & prefix_bits(page, pages_KP.device)[-1]) != 0
        if start // page < (stop - batch.new) // page:
            self._memory.fetch(pages_KP[there_KP])
        frames_KP = self._memory.frames(pages_KP).masked_fill(~there_KP, 0)
        key_KTD = self._memory.pool_FPSD[frames_KP, 0].flatten(1, 2)
        tokens = slice(start % page, start % page + stop - start)
        return _Stretch(key_KTD[:, tokens], there_KP.repeat_interleave(page, dim=1)[:, tokens])


def _ends(count: int, size: int) -> bool:
    """Whether a partition is complete with this many tokens."""
    return count > 0 and count % size == 0
