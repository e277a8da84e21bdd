"""What an algorithm keeps of the keys, and what it selects by: SPIN's Index and Select."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from backends.attention.base import AttentionKernel, SelectRule, StepInputs
from backends.batch import Batch
from memory_tiers.base import Layout, PageSelection, PartitionMapper, prefix_bits
from memory_tiers.manager import CacheManager
from memory_tiers.summary_store import SEGMENT, SummaryStore
from sparse_algos.retriever import Retriever
from sparse_algos.selection import Selection, Visible


class Keys(NamedTuple):
    """Keys of consecutive tokens of all kv heads of a sequence, and which are still there."""

    key_KTD: Tensor
    held_KT: Tensor


class Selected(NamedTuple):
    """Partitions of each row, and the pages that hold them."""

    partitions: Selection
    pages: PageSelection


class _Step(NamedTuple):
    """What the layers of a decode step select by."""

    batch: Batch
    rule: SelectRule
    columns_R: Tensor | None
    num_partitions: int


class Index:
    """Summaries of the partitions of every row and layer that a retriever serves."""

    def __init__(
        self,
        retrieve: Retriever,
        mapper: PartitionMapper,
        store: SummaryStore,
        memory: CacheManager,
        kernel: AttentionKernel,
    ) -> None:
        """Join the parts; the store is empty."""
        self.retrieve = retrieve
        self.store = store
        self._mapper = mapper
        self._memory = memory
        self._kernel = kernel
        self._page_tokens = memory.geometry.page_tokens
        self._in_kernel = mapper.in_order and retrieve.takes_best and retrieve.scored is not None
        self._step: _Step | None = None

    @property
    def peak_bytes(self) -> int:
        """Most bytes that were taken at one time."""
        return self.store.peak_bytes

    def rebuild(self, layer: int, batch: Batch) -> None:
        """Form partitions anew where that is due, before the batch's tokens are stored."""

    def update(self, layer: int, batch: Batch, key_ND: Tensor) -> None:
        """Summarise new keys, rows outermost [R * M, D], which are in their pages already."""
        size = self.retrieve.partition_size
        rows_R = batch.index_rows(layer)
        if batch.starts_any(size * SEGMENT):
            last_R = torch.div(batch.stored_R + batch.new - 1, size, rounding_mode="trunc")
            self.store.reserve(rows_R, -(-batch.longest // size), last_R + 1)
        if batch.new > 1 and batch.is_even:
            self._build(layer, batch)
            return
        for slot_R, key_RD in zip(
            batch.positions_RM.unbind(1),
            key_ND.view(len(rows_R), batch.new, -1).unbind(1),
            strict=True,
        ):
            old = self.store.read_at(rows_R, slot_R // size)
            grown = self.retrieve.append(old, slot_R % size, key_RD)
            self.store.write(rows_R, slot_R // size, grown)

    def restart(self, layer: int, rows_R: Tensor, key_RTD: Tensor, live_RT: Tensor) -> None:
        """Rows of the page table hold these keys now, and nothing else: bool [R, T] says which."""
        size, table = self.retrieve.partition_size, self._memory.table
        missing = -key_RTD.shape[1] % size
        keys_RPSD = pad(key_RTD, (0, 0, 0, missing)).unflatten(1, (-1, size))
        live_RPS = pad(live_RT, (0, missing)).unflatten(1, (-1, size))
        row_N, partition_N = live_RPS.any(dim=2).nonzero(as_tuple=True)
        index_rows_R = rows_R + layer * table.num_rows
        self.store.release(index_rows_R)
        self.store.reserve(index_rows_R, keys_RPSD.shape[1], live_RPS.any(dim=2).sum(dim=1))
        at = (row_N, partition_N)
        built = self.retrieve.build(keys_RPSD[at], live_RPS[at])
        self.store.write(index_rows_R[row_N], partition_N, built)

    def select(self, layer: int, batch: Batch, query_NGD: Tensor) -> Selected:
        """What each query row reads."""
        num_partitions = -(-batch.longest // self.retrieve.partition_size)
        scores_NGP = self._score(layer, batch, query_NGD, num_partitions)
        rows, visible, table = batch.query_rows(layer), batch.visible, self._memory.table
        alive = table.alive(rows, self.retrieve.partition_size)
        if alive is not None:
            visible = Visible(rows.num_tokens_R, rows.longest, alive)
        selection = self.retrieve.select(scores_NGP, visible)
        layout = Layout(
            page_tokens=self._page_tokens,
            partition_size=self.retrieve.partition_size,
            dead_P=table.dead_P,
        )
        return Selected(selection, self._mapper.to_pages(selection, rows, layout))

    def step_inputs(
        self, layer: int, batch: Batch, query_RGD: Tensor, scale: float, *, trace: bool
    ) -> StepInputs | None:
        """What a fused decode step takes; None where one cannot do what `select` does."""
        if not self._in_kernel or self._memory.table.dead_P is not None:
            return None
        assert self.retrieve.scored is not None
        if self._step is None or self._step.batch is not batch:
            self._step = self._step_of(batch)
        rows_R = batch.index_rows(layer)
        segments = self.store.segments(self.retrieve.scored, rows_R, self._step.num_partitions)
        return StepInputs(
            query_RGD=query_RGD,
            pool_FPSD=self._memory.pool_FPSD,
            scale=scale,
            scoring_RQE=self.retrieve.scoring_query(query_RGD),
            segments_NCE=segments.pool_NCE,
            directory_RW=segments.directory_RW,
            num_tokens_R=batch.visible.num_tokens_R,
            first_page_R=self._memory.table.first_page(layer, batch.rows_R),
            columns_R=self._step.columns_R,
            rule=self._step.rule,
            table=self._memory.fast.table.view(),
            trace=trace,
        )

    def _step_of(self, batch: Batch) -> _Step:
        """What the layers of a step have in common."""
        retrieve = self.retrieve
        rule = SelectRule(
            columns=retrieve.most_columns(batch.longest),
            partition_size=retrieve.partition_size,
            sinks=retrieve.sinks,
            recents=retrieve.recents,
            group_reduce=retrieve.group_reduce,
        )
        partitions = -(-batch.longest // retrieve.partition_size)
        return _Step(batch, rule, retrieve.columns(batch.visible), partitions)

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        table = self._memory.table
        rows_K = table.rows_of(torch.tensor([slot], device=table.device))
        for layer in range(self._memory.geometry.num_layers):
            self.store.release(rows_K + layer * table.num_rows)

    def waste_pages(self, num_tokens: int) -> int:
        """Pages that a row of so many tokens takes at most beyond those of its tokens."""
        return self._mapper.waste_pages(self.retrieve.most_partitions(num_tokens))

    def _build(self, layer: int, batch: Batch) -> None:
        """Summarise every partition that a chunk of one sequence touched, from its pages."""
        size, stop = self.retrieve.partition_size, batch.longest
        first, last = (stop - batch.new) // size, -(-stop // size)
        key_KTD, held_KT = self._keys(layer, batch, first * size)
        missing = (last - first) * size - key_KTD.shape[1]
        keys_KPSD = pad(key_KTD, (0, 0, 0, missing)).unflatten(1, (-1, size))
        live_KPS = pad(held_KT, (0, missing)).unflatten(1, (-1, size))
        built = self.retrieve.build(keys_KPSD.flatten(0, 1), live_KPS.flatten(0, 1))
        rows_K = batch.index_rows(layer)
        partition_P = torch.arange(first, last, device=rows_K.device)
        rows_N = rows_K.repeat_interleave(len(partition_P))
        self.store.write(rows_N, partition_P.repeat(len(rows_K)), built)

    def _keys(self, layer: int, batch: Batch, start: int) -> Keys:
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
        return Keys(key_KTD[:, tokens], there_KP.repeat_interleave(page, dim=1)[:, tokens])

    def _score(self, layer: int, batch: Batch, query_NGD: Tensor, num_partitions: int) -> Tensor:
        """Relevance of each row's partitions to its queries, float32 [N, G, P]."""
        rows_R, retrieve = batch.index_rows(layer), self.retrieve
        query_RQD = query_NGD.view(len(rows_R), -1, query_NGD.shape[-1])
        if retrieve.scored is None:
            scores_RQP = retrieve.score(self.store.read(rows_R, num_partitions), query_RQD)
        else:
            pool_NCE, directory_RW = self.store.segments(retrieve.scored, rows_R, num_partitions)
            query_RQE = retrieve.scoring_query(query_RQD)
            scores_RQP = self._kernel.score(query_RQE, pool_NCE, directory_RW, num_partitions)
        return scores_RQP.reshape(*query_NGD.shape[:2], -1)
