"""The index of a retriever over clusters: when they are formed, and how their tokens move."""

from typing import NamedTuple

import torch
from torch import Tensor

from backends.attention.base import Attended, AttentionKernel
from backends.batch import Batch
from backends.index import Index, Selected
from backends.shared_tokens import SharedTokens
from backends.summarise import Arrived
from backends.zones import choose, estimate
from memory_tiers.base import Layout, PartitionMapper
from memory_tiers.manager import CacheManager
from memory_tiers.partition.clusters import ClusterMapper
from memory_tiers.partition.layout import ClusterLayout
from memory_tiers.summary_store import SummaryStore
from sparse_algos.clustered import ClusterRetriever
from sparse_algos.retriever import Retriever
from sparse_algos.selection import Clusters, Selection, Visible


class Tokens(NamedTuple):
    """Consecutive tokens of all kv heads of one sequence and layer."""

    key_KTD: Tensor
    value_KTD: Tensor


class ClusterIndex(Index):
    """Clusters are formed before a sparse step whose sequence has enough tokens waiting."""

    def __init__(
        self,
        retrieve: Retriever,
        mapper: PartitionMapper,
        store: SummaryStore,
        memory: CacheManager,
        kernel: AttentionKernel,
    ) -> None:
        """Join the parts; no cluster is there."""
        super().__init__(retrieve, mapper, store, memory, kernel)
        assert isinstance(retrieve, ClusterRetriever) and isinstance(mapper, ClusterMapper)
        self._clusters = retrieve
        self._places = mapper
        table = memory.table
        most = retrieve.most_partitions(table.token_pages * self._page_tokens)
        self._layout = ClusterLayout(mapper, table, most)
        self._shared = SharedTokens()

    @property
    def peak_bytes(self) -> int:
        """See Index; where clusters lie counts too."""
        return super().peak_bytes + self._layout.num_bytes

    def update(self, layer: int, batch: Batch, arrived: Arrived) -> None:
        """New keys wait; nothing is summarised before `rebuild`."""
        self._shared.note(batch)

    def rebuild(self, layer: int, batch: Batch) -> None:
        """Form clusters of what waits in sequences where that is due; see Index.

        Of a context that is asked again, and of nothing behind it, which a later question does not
        see: that is read like the recents.
        """
        for slot, stored in zip(batch.slots, batch.stored, strict=True):
            covered = self._layout.covered(layer, slot).tokens
            due = self._clusters.due(self._shared.at_most(slot, stored), covered)
            if due is not None:
                self._form(layer, slot, due)

    def rewind(self, layer: int, slot: int, num_tokens: int) -> None:
        """See Index; its clusters stay."""
        covered = self._layout.covered(layer, slot).tokens
        assert covered <= num_tokens, f"clusters reach to {covered}, the context to {num_tokens}"

    def select(self, layer: int, batch: Batch, query_NGD: Tensor) -> Selected:
        """See Index."""
        rows, rows_N = batch.query_rows(layer), batch.index_rows(layer)
        partitions = self._layout.most_partitions(layer, batch.slots)
        if partitions:
            scores_NGP = self._scores_of(layer, batch, query_NGD, partitions)
        else:
            scores_NGP = query_NGD.new_empty((*query_NGD.shape[:2], 0), dtype=torch.float32)
        selection = self._select(layer, batch, scores_NGP)
        if batch.new > 1:
            rows_N = rows_N.repeat_interleave(batch.new)
        layout = Layout(
            page_tokens=self._page_tokens,
            partition_size=1,
            ranges=self._layout.ranges(selection, rows, rows_N),
        )
        return Selected(selection, self._mapper.to_pages(selection, rows, layout), scores_NGP)

    def estimated(
        self,
        layer: int,
        batch: Batch,
        query_NGD: Tensor,
        selected: Selected,
        read: Attended,
        scale: float,
    ) -> Attended:
        """See Index."""
        estimated_NC, scores_NGP = selected.partitions.estimated_RC, selected.scores_NGP
        assert estimated_NC is not None and scores_NGP is not None
        rows_R, partitions = batch.index_rows(layer), scores_NGP.shape[2]
        value = self.store.segments("value", rows_R, partitions)
        size_NC1 = self.store.segments("size", rows_R, partitions).pool_NCE
        factor = self._clusters.logits_by(scale, query_NGD.shape[2])
        rest = estimate(scores_NGP, estimated_NC, value, size_NC1, factor)
        if rest is None:
            return super().estimated(layer, batch, query_NGD, selected, read, scale)
        return Attended(rest.out_RGD.to(query_NGD.dtype), rest.lse_RG)

    def release(self, slot: int) -> None:
        """See Index."""
        super().release(slot)
        self._layout.release(slot)
        self._shared.forget(slot)

    def _select(self, layer: int, batch: Batch, scores_NGP: Tensor) -> Selection:
        rows = batch.query_rows(layer)
        clusters = self._layout.clusters(layer, batch.slots, batch.index_rows(layer))
        if batch.new > 1:
            clusters = Clusters(*(one.repeat_interleave(batch.new, dim=0) for one in clusters))
        visible = Visible(rows.num_tokens_R, rows.longest, clusters=clusters)
        chosen = choose(self._clusters, scores_NGP, visible, self._memory.geometry.head_dim)
        return self._clusters.select(scores_NGP, visible) if chosen is None else chosen

    def _form(self, layer: int, slot: int, due: range) -> None:
        """Cluster these tokens, and write them where the clusters lie."""
        table = self._memory.table
        rows_K = table.rows_of(torch.tensor([slot], device=table.geometry.device))
        first_page_K1 = table.first_page(layer, rows_K).unsqueeze(1)
        read = self._read(first_page_K1, due)
        labels_KT = self._clusters.cluster(read.key_KTD)
        count = self._clusters.num_clusters(len(due))
        before = self._layout.covered(layer, slot)
        sizes_KP = torch.zeros_like(labels_KT[:, :1]).repeat(1, count)
        sizes_KP.scatter_add_(1, labels_KT, torch.ones_like(labels_KT))
        first_KP = self._layout.add(layer, slot, due, sizes_KP)
        self._summarise(rows_K + layer * table.num_rows, before.partitions, read, labels_KT, count)
        if self._places.moves:
            self._leave(first_page_K1, before.tokens, due)
        self._move(first_page_K1, read, labels_KT, first_KP, sizes_KP)

    def _read(self, first_page_K1: Tensor, tokens: range) -> Tokens:
        """What pages hold of tokens that are still in their own slots, in waves."""
        size = self._page_tokens
        last, step = -(-tokens.stop // size), self._pages_at_once(len(first_page_K1))
        parts = []
        for start in range(tokens.start // size, last, step):
            stop = min(start + step, last)
            pages_KN = first_page_K1 + torch.arange(start, stop, device=first_page_K1.device)
            frames_KN = self._memory.fetch(pages_KN.flatten()).frames_N.view(pages_KN.shape)
            found = slice(max(tokens.start - start * size, 0), tokens.stop - start * size)
            # An index by a tensor copies: the next wave may take these frames.
            parts.append(self._memory.pool_FPSD[frames_KN].movedim(2, 0).flatten(2, 3)[:, :, found])
        return Tokens(*torch.cat(parts, dim=2))

    def _summarise(
        self, rows_K: Tensor, before: int, read: Tokens, labels_KT: Tensor, count: int
    ) -> None:
        built = self._clusters.summarise(*read, labels_KT, count)
        self.store.reserve(rows_K, before + count)
        partition_P = torch.arange(before, before + count, device=rows_K.device)
        self.store.write(
            rows_K.repeat_interleave(count),
            partition_P.repeat(len(rows_K)),
            {name: one.flatten(0, 1) for name, one in built.items()},
        )

    def _leave(self, first_page_K1: Tensor, covered: int, due: range) -> None:
        """Give back the pages whose tokens have all moved."""
        size = self._page_tokens
        start = max(-(-self._clusters.sinks // size), covered // size)
        stop = max(start, due.stop // size)
        pages_N = torch.arange(start, stop, device=first_page_K1.device)
        self._memory.free((first_page_K1 + pages_N).flatten())

    def _move(
        self,
        first_page_K1: Tensor,
        read: Tokens,
        labels_KT: Tensor,
        first_KP: Tensor,
        sizes_KP: Tensor,
    ) -> None:
        """Write tokens cluster by cluster, in waves that the fast tier holds."""
        size, memory = self._page_tokens, self._memory
        label_KT, order_KT = labels_KT.sort(dim=1, stable=True)
        rank_KP = sizes_KP.cumsum(dim=1) - sizes_KP
        rank_T = torch.arange(label_KT.shape[1], device=label_KT.device)
        slot_KT = (first_KP - rank_KP).gather(1, label_KT) + rank_T
        page_KT = torch.div(slot_KT, size, rounding_mode="trunc")
        order_KTD = order_KT.unsqueeze(2).expand_as(read.key_KTD)
        key_KTD, value_KTD = (one.gather(1, order_KTD) for one in read)
        nth_KT, step = page_KT - page_KT[:, :1], self._pages_at_once(len(label_KT))
        num_pages = 0
        for start in range(0, int(nth_KT.max()) + 1, step):
            wave_KT = (nth_KT >= start) & (nth_KT < start + step)
            pages_N = (first_page_K1 + page_KT)[wave_KT]
            memory.write(pages_N, slot_KT[wave_KT] % size, key_KTD[wave_KT], value_KTD[wave_KT])
            num_pages += pages_N.unique().numel()
        count = memory.counters.current
        placed = num_pages * size if self._places.moves else label_KT.numel()
        count.slots_placed += placed
        count.slots_padding += placed - label_KT.numel()

    def _pages_at_once(self, num_rows: int) -> int:
        return max(1, self._memory.num_fast_frames // num_rows)
