"""The index of a pruner: that of the retriever it prunes, and rounded keys to weigh tokens by."""

from torch import Tensor

from backends.attention.base import AttentionKernel, StepInputs
from backends.batch import Batch
from backends.index import Index, Selected
from backends.nucleus import kept_in_place
from backends.summarise import Arrived
from memory_tiers.base import Layout, PartitionMapper
from memory_tiers.manager import CacheManager
from memory_tiers.summary_store import SummaryStore
from sparse_algos.retrieve.twilight import Twilight
from sparse_algos.retriever import Retriever
from sparse_algos.selection import Selection


class PrunedIndex(Index):
    """Two stores: summaries of the base's partitions, and a rounded key of every token."""

    def __init__(
        self,
        retrieve: Retriever,
        mapper: PartitionMapper,
        store: SummaryStore,
        memory: CacheManager,
        kernel: AttentionKernel,
    ) -> None:
        """Join the parts; the stores are empty."""
        super().__init__(retrieve, mapper, store, memory, kernel)
        assert isinstance(retrieve, Twilight)
        self._pruner = retrieve
        base, table = retrieve.selector, memory.table
        spec = base.summary_spec(memory.geometry.head_dim, memory.geometry.dtype)
        partitions = base.most_partitions(table.token_pages * self._page_tokens)
        num_rows = memory.geometry.num_layers * table.num_rows
        base_store = SummaryStore(spec, num_rows, partitions, memory.geometry.device)
        self._base = Index(base, mapper, base_store, memory, kernel)

    @property
    def peak_bytes(self) -> int:
        """See Index; both stores."""
        return super().peak_bytes + self._base.peak_bytes

    def update(self, layer: int, batch: Batch, arrived: Arrived) -> None:
        """See Index."""
        super().update(layer, batch, arrived)
        self._base.update(layer, batch, arrived)

    def restart(self, layer: int, rows_R: Tensor, key_RTD: Tensor, live_RT: Tensor) -> None:
        """See Index."""
        super().restart(layer, rows_R, key_RTD, live_RT)
        self._base.restart(layer, rows_R, key_RTD, live_RT)

    def rewind(self, layer: int, slot: int, num_tokens: int) -> None:
        """See Index."""
        super().rewind(layer, slot, num_tokens)
        self._base.rewind(layer, slot, num_tokens)

    def select(self, layer: int, batch: Batch, query_NGD: Tensor) -> Selected:
        """See Index: what the base chooses, less what holds too little weight."""
        rows = batch.query_rows(layer)
        chosen = self._chosen(layer, batch, query_NGD)
        alive_NP = self._memory.table.alive(rows, 1)
        visible = batch.visible if alive_NP is None else batch.visible_where(alive_NP)
        candidates = self._pruner.candidates(chosen, visible)
        kept_NC = self._kept(layer, batch, query_NGD, candidates)
        selection = self._pruner.joined(kept_NC, candidates, visible)
        layout = Layout(
            page_tokens=self._page_tokens, partition_size=1, dead_P=self._memory.table.dead_P
        )
        return Selected(selection, self._mapper.to_pages(selection, rows, layout), None)

    def release(self, slot: int) -> None:
        """See Index."""
        super().release(slot)
        self._base.release(slot)

    def step_inputs(
        self, layer: int, batch: Batch, query_RGD: Tensor, scale: float, *, trace: bool
    ) -> StepInputs | None:
        """No kernel prunes by itself."""
        return None

    def _chosen(self, layer: int, batch: Batch, query_NGD: Tensor) -> Selection:
        """What the base selects, by the kernel where it can."""
        step = None
        if batch.new == 1 and self._kernel.fused:
            step = self._base.step_inputs(layer, batch, query_NGD, 1.0, trace=True)
        if step is None:
            return self._base.choose(layer, batch, query_NGD)
        chosen = self._kernel.select(step).partitions
        assert chosen is not None, "the step was traced"
        return Selection(chosen.partitions_RC, chosen.partitions_RC >= 0)

    def _kept(self, layer: int, batch: Batch, query_NGD: Tensor, candidates: Selection) -> Tensor:
        """Candidates that hold enough weight, bool [N, C]."""
        assert candidates.valid_RC is not None
        if self._pruner.prunes:
            rows_R, partitions = batch.index_rows(layer), self._num_partitions(batch)
            kept_NC = kept_in_place(
                query_NGD,
                self.store.segments("code", rows_R, partitions),
                self.store.segments("range", rows_R, partitions).pool_NCE,
                candidates.partitions_RC.masked_fill(~candidates.valid_RC, -1),
                self._pruner.top_p,
                query_NGD.shape[2] ** -0.5,
            )
            if kept_NC is not None:
                return kept_NC
        return self._pruner.prune(self._logits(layer, batch, query_NGD, candidates), candidates)

    def _logits(self, layer: int, batch: Batch, query_NGD: Tensor, candidates: Selection) -> Tensor:
        """Estimated logits of the candidates, float32 [N, G, C]."""
        assert candidates.valid_RC is not None
        rows_N1 = batch.index_rows(layer).repeat_interleave(batch.new).unsqueeze(1)
        token_NC = candidates.partitions_RC.masked_fill(~candidates.valid_RC, 0)
        summaries = self.store.read_at(rows_N1.expand_as(token_NC), token_NC)
        queries = self._queries(layer, batch, query_NGD, token_NC.shape[1])
        return self._pruner.score(summaries, queries._replace(query_RQD=query_NGD))
