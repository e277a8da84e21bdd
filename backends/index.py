"""What an algorithm keeps of the keys, and what it selects by: SPIN's Index and Select."""

from typing import NamedTuple

import torch
from torch import Tensor

from backends.attention.base import AttentionKernel
from backends.batch import Batch
from memory_tiers.base import PageSelection, PartitionMapper
from memory_tiers.manager import CacheManager
from memory_tiers.summary_store import SEGMENT, SummaryStore
from sparse_algos.base import Retriever, Selection, Visible


class Selected(NamedTuple):
    """Partitions of each row, and the pages that hold them."""

    partitions: Selection
    pages: PageSelection


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

    def update(self, layer: int, batch: Batch, key_ND: Tensor) -> None:
        """Summarise new keys, rows outermost [R * M, D], which are in their pages already."""
        size = self.retrieve.partition_size
        rows_R = batch.index_rows(layer)
        if batch.starts_any(size * SEGMENT):
            self.store.reserve(rows_R, -(-batch.longest // size))
        if batch.new > 1:
            self._build(layer, batch)
            return
        partition_R = batch.stored_R // size
        old = self.store.read_at(rows_R, partition_R)
        grown = self.retrieve.append(old, batch.stored_R % size, key_ND)
        self.store.write(rows_R, partition_R, grown)

    def select(self, layer: int, batch: Batch, query_NGD: Tensor) -> Selected:
        """What each query row reads."""
        scores_NGP = self._score(layer, batch, query_NGD)
        rows, visible, table = batch.query_rows(layer), batch.visible, self._memory.table
        alive = table.alive(rows, self.retrieve.partition_size)
        if alive is not None:
            visible = Visible(rows.num_tokens_R, rows.longest, alive)
        selection = self.retrieve.select(scores_NGP, visible)
        pages = self._mapper.to_pages(selection, rows, self._page_tokens, table.dead_P)
        return Selected(selection, pages)

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        table = self._memory.table
        rows_K = table.rows_of(torch.tensor([slot], device=table.device))
        for layer in range(self._memory.geometry.num_layers):
            self.store.release(rows_K + layer * table.num_rows)

    def _build(self, layer: int, batch: Batch) -> None:
        """Summarise every partition that a chunk of one sequence touched, from its pages."""
        size, stop = self.retrieve.partition_size, batch.longest
        page = self._page_tokens
        first_page = (stop - batch.new) // page
        pages_KP = batch.pages(layer, first_page, -(-stop // page))
        frames_KP = self._memory.frames(pages_KP)
        keys_KTD = self._memory.pool_FPSD[frames_KP, 0].flatten(1, 2)
        partition_P = torch.arange(
            (stop - batch.new) // size, -(-stop // size), device=pages_KP.device
        )
        skipped = int(partition_P[0]) * size - first_page * page
        keys_KPSD = keys_KTD[:, skipped:][:, : len(partition_P) * size].unflatten(1, (-1, size))
        token_PS = partition_P.unsqueeze(1) * size + torch.arange(size, device=pages_KP.device)
        live_KPS = (token_PS < stop).expand(len(pages_KP), -1, -1)
        built = self.retrieve.build(keys_KPSD.flatten(0, 1), live_KPS.flatten(0, 1))
        rows_K = batch.index_rows(layer)
        rows_N = rows_K.repeat_interleave(len(partition_P))
        self.store.write(rows_N, partition_P.repeat(len(rows_K)), built)

    def _score(self, layer: int, batch: Batch, query_NGD: Tensor) -> Tensor:
        """Relevance of each row's partitions to its queries, float32 [N, G, P]."""
        rows_R, retrieve = batch.index_rows(layer), self.retrieve
        num_partitions = -(-batch.longest // retrieve.partition_size)
        query_RQD = query_NGD.view(len(rows_R), -1, query_NGD.shape[-1])
        if retrieve.scored is None:
            scores_RQP = retrieve.score(self.store.read(rows_R, num_partitions), query_RQD)
        else:
            pool_NCE, directory_RW = self.store.segments(retrieve.scored, rows_R, num_partitions)
            query_RQE = retrieve.scoring_query(query_RQD)
            scores_RQP = self._kernel.score(query_RQE, pool_NCE, directory_RW, num_partitions)
        return scores_RQP.reshape(*query_NGD.shape[:2], -1)
