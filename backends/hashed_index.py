"""The index of a retriever that hashes keys in bulk, about the mean of those of the context."""

import torch
from torch import Tensor

from backends.attention.base import AttentionKernel, StepInputs
from backends.batch import Batch
from backends.collisions import collisions
from backends.drawn import Drawn
from backends.draws import draws
from backends.index import Index, Selected
from backends.shared_tokens import SharedTokens
from backends.stored_keys import stored_keys
from backends.summarise import Arrived
from memory_tiers.base import Layout, PartitionMapper
from memory_tiers.manager import CacheManager
from memory_tiers.summary_store import SummaryStore
from sparse_algos.hashed import HashedRetriever
from sparse_algos.retriever import Retriever
from sparse_algos.selection import Selection, Visible


class HashedIndex(Index):
    """Keys are hashed before a sparse step whose sequence has enough of them waiting."""

    def __init__(
        self,
        retrieve: Retriever,
        mapper: PartitionMapper,
        store: SummaryStore,
        memory: CacheManager,
        kernel: AttentionKernel,
    ) -> None:
        """Join the parts; nothing is hashed."""
        super().__init__(retrieve, mapper, store, memory, kernel)
        assert isinstance(retrieve, HashedRetriever)
        self._hashes = retrieve
        self._covered: dict[tuple[int, int], int] = {}
        self._shared = SharedTokens()
        geometry = memory.geometry
        num_rows = geometry.num_layers * memory.table.num_rows
        self._center_RD = torch.zeros(num_rows, geometry.head_dim, device=geometry.device)

    @property
    def peak_bytes(self) -> int:
        """See Index; the centers count too."""
        return super().peak_bytes + self._center_RD.nbytes

    def update(self, layer: int, batch: Batch, arrived: Arrived) -> None:
        """New keys wait; nothing is hashed before `rebuild`."""
        self._shared.note(batch)

    def rebuild(self, layer: int, batch: Batch) -> None:
        """Hash what waits in sequences where that is due; see Index, and ClusterIndex.

        Where heads hold different numbers of tokens, no more than all of them have.
        """
        in_all = batch.stored if batch.in_use is None else batch.in_use.least
        for slot, stored in zip(batch.slots, in_all, strict=True):
            covered = self._covered.get((layer, slot), 0)
            due = self._hashes.due(self._shared.at_most(slot, stored), covered)
            if due is not None:
                self._hash(layer, slot, due)

    def restart(self, layer: int, rows_R: Tensor, key_RTD: Tensor, live_RT: Tensor) -> None:
        """See Index; what is left waits to be hashed."""
        table = self._memory.table
        self.store.release(rows_R + layer * table.num_rows)
        for slot in (rows_R // table.geometry.num_kv_heads).unique().tolist():
            self._covered.pop((layer, slot), None)

    def rewind(self, layer: int, slot: int, num_tokens: int) -> None:
        """See Index; what is hashed of the context stays."""
        covered = self._covered.get((layer, slot), 0)
        assert covered <= num_tokens, f"{covered} tokens are hashed, the context has {num_tokens}"

    def select(self, layer: int, batch: Batch, query_NGD: Tensor) -> Selected:
        """See Index."""
        rows, heads = batch.query_rows(layer), self._memory.geometry.num_kv_heads
        covered = [self._covered.get((layer, slot), 0) for slot in batch.slots]
        covered_B = torch.tensor(covered, device=rows.num_tokens_R.device)
        visible = Visible(
            rows.num_tokens_R,
            rows.longest,
            self._memory.table.alive(rows, 1),
            covered_R=covered_B.repeat_interleave(heads * batch.new),
        )
        selection = self._drawn_at_once(layer, batch, query_NGD, visible, max(covered))
        if selection is None:
            scores_NGP = self._counted(layer, batch, query_NGD, max(covered))
            selection = self.retrieve.select(scores_NGP, visible)
        layout = Layout(
            page_tokens=self._page_tokens, partition_size=1, dead_P=self._memory.table.dead_P
        )
        return Selected(selection, self._mapper.to_pages(selection, rows, layout), None)

    def drawn(
        self, layer: int, batch: Batch, query_NGD: Tensor, selected: Selected
    ) -> Drawn | None:
        """See Index."""
        if not any((layer, slot) in self._covered for slot in batch.slots):
            return None
        rows_N = batch.index_rows(layer).repeat_interleave(batch.new)
        query_NGD = query_NGD.float()
        return Drawn(
            retrieve=self._hashes,
            selection=selected.partitions,
            live_N=selected.pages.live_N,
            norms=self.store.segments("norm", rows_N, batch.longest),
            inner_NG=(query_NGD @ self._center_RD[rows_N].unsqueeze(2)).squeeze(2),
            norm_NG=query_NGD.norm(dim=2),
        )

    def release(self, slot: int) -> None:
        """See Index."""
        super().release(slot)
        self._shared.forget(slot)
        for layer in range(self._memory.geometry.num_layers):
            self._covered.pop((layer, slot), None)

    def step_inputs(
        self, layer: int, batch: Batch, query_RGD: Tensor, scale: float, *, trace: bool
    ) -> StepInputs | None:
        """No kernel draws by itself."""
        return None

    def _drawn_at_once(
        self, layer: int, batch: Batch, query_NGD: Tensor, visible: Visible, num_tokens: int
    ) -> Selection | None:
        """What the first `num_tokens` of each row and the rest of it give, if it is compiled."""
        rows_N = batch.index_rows(layer).repeat_interleave(batch.new)
        segments = self.store.segments("code", rows_N, num_tokens)
        return draws(self._hashes, self._hashes.codes(query_NGD.float()), segments, visible)

    def _counted(self, layer: int, batch: Batch, query_NGD: Tensor, num_tokens: int) -> Tensor:
        """Collisions of each row's hashed tokens, float32 [N, G, P]."""
        queries = self._queries(layer, batch, query_NGD, num_tokens)
        segments = self.store.segments("code", batch.index_rows(layer), num_tokens)
        query_RQL = self._hashes.codes(queries.query_RQD.float())
        count_RQP = collisions(query_RQL, segments, num_tokens)
        if count_RQP is None:
            return self._scores_of(layer, batch, query_NGD, num_tokens)
        return count_RQP.view(*query_NGD.shape[:2], -1)

    def _hash(self, layer: int, slot: int, due: range) -> None:
        table = self._memory.table
        rows_K = table.rows_of(torch.tensor([slot], device=table.device))
        key_KTD, held_KT = stored_keys(self._memory, table.first_page(layer, rows_K), due)
        key_KTD = key_KTD.float().masked_fill(~held_KT.unsqueeze(2), 0)
        rows_K = rows_K + layer * table.num_rows
        if due.start == 0:
            count_K1 = held_KT.sum(dim=1, keepdim=True).clamp(min=1)
            self._center_RD[rows_K] = key_KTD.sum(dim=1) / count_K1
        hashed = self._hashes.hashed(key_KTD, self._center_RD[rows_K])
        self.store.reserve(rows_K, due.stop)
        token_T = torch.arange(due.start, due.stop, device=rows_K.device)
        self.store.write(
            rows_K.repeat_interleave(len(token_T)),
            token_T.repeat(len(rows_K)),
            {name: one.flatten(0, 1) for name, one in hashed.items()},
        )
        self._covered[layer, slot] = due.stop
