"""One layer of attention over paged KV: the algorithm and the memory, joined.

Index = build or append, Offload = write, Select = score and select, Retrieve = plan and execute,
Attention = attend: the five operations of SPIN (arXiv:2604.26837, section 4.1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from backends.attention.base import Attended, AttentionKernel, FrameSelection, merge
from backends.batch import Batch
from backends.chunk_attention import ChunkAttention
from memory_tiers.base import PageSelection, PartitionMapper
from memory_tiers.manager import CacheManager
from memory_tiers.summary_store import SEGMENT, SummaryStore
from sparse_algos.base import Algorithm, Retriever, Visible


@dataclass(frozen=True)
class LayerRules:
    """How the layers differ.

    dense_layers: layers where no role of the algorithm acts; windowed_layers: the model's own
    sliding-window layers, among the dense ones; window: tokens that these see.
    """

    dense_layers: frozenset[int]
    windowed_layers: frozenset[int]
    window: int | None

    def window_of(self, layer: int) -> int | None:
        """Tokens in sight on a layer; None when all are."""
        return self.window if layer in self.windowed_layers else None


class PagedAttention:
    """Attention of all layers for the sequences of one engine."""

    def __init__(
        self,
        *,
        algorithm: Algorithm,
        mapper: PartitionMapper,
        memory: CacheManager,
        index: SummaryStore | None,
        kernel: AttentionKernel,
        rules: LayerRules,
    ) -> None:
        """Join the parts; `index` is there exactly when the algorithm retrieves."""
        assert (index is None) == (algorithm.retrieve is None)
        self.algorithm = algorithm
        self.memory = memory
        self.index = index
        self.kernel = kernel
        self.rules = rules
        self._mapper = mapper
        self._size = memory.geometry.page_tokens

    def dense(
        self,
        layer: int,
        batch: Batch,
        query_MHD: Tensor,
        key_MKD: Tensor,
        value_MKD: Tensor,
        scale: float,
    ) -> Tensor:
        """A chunk of one sequence that sees everything before it: [M, H, D]."""
        assert len(batch.slots) == 1
        self.store(layer, batch, key_MKD, value_MKD)
        window = self.rules.window_of(layer)
        chunk = ChunkAttention(self.memory, self.kernel)
        return chunk.attend(layer, batch, query_MHD, key_MKD, value_MKD, scale, window)

    def sparse(
        self,
        layer: int,
        batch: Batch,
        query_BMHD: Tensor,
        key_BMKD: Tensor,
        value_BMKD: Tensor,
        scale: float,
    ) -> Tensor:
        """Rows that read what the algorithm selects for each of them: [B, M, H, D]."""
        self._evict(layer, batch)
        self.store(layer, batch, key_BMKD.flatten(0, 1), value_BMKD.flatten(0, 1))
        num_heads = self.memory.geometry.num_kv_heads
        query_BKMGD = query_BMHD.unflatten(2, (num_heads, -1)).transpose(1, 2)
        query_NGD = query_BKMGD.flatten(0, 2).contiguous()
        retrieve = self._retriever(layer)
        if retrieve is None:
            pages = batch.every_page(layer, self.rules.window_of(layer))
        else:
            pages = self._select(retrieve, layer, batch, query_NGD)
        self._count_read(batch, pages)
        at_once = retrieve is not None and batch.new == 1
        attended = self._attend(query_NGD, pages, scale, at_once=at_once, shared=batch.new > 1)
        out_BKMGD = attended.out.view(query_BKMGD.shape)
        return out_BKMGD.transpose(1, 2).flatten(2, 3)

    def store(self, layer: int, batch: Batch, key_NKD: Tensor, value_NKD: Tensor) -> None:
        """Write packed keys and values, [B * M, K, D], to pages and summarise them."""
        self.memory.write(
            batch.write_pages(layer),
            batch.write_slots_N,
            _by_row(key_NKD, batch.new),
            _by_row(value_NKD, batch.new),
            shared=batch.new > 1,
        )
        self._index(layer, batch, key_NKD)

    def acts_on(self, layer: int) -> bool:
        """Whether a role of the algorithm acts on this layer."""
        return not self.algorithm.is_dense and layer not in self.rules.dense_layers

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        self.memory.release(slot)
        if self.index is not None:
            table = self.memory.table
            rows_K = table.rows_of(torch.tensor([slot], device=table.dirty_P.device))
            for layer in range(self.memory.geometry.num_layers):
                self.index.release(rows_K + layer * table.num_rows)

    def _retriever(self, layer: int) -> Retriever | None:
        return self.algorithm.retrieve if layer not in self.rules.dense_layers else None

    def _evict(self, layer: int, batch: Batch) -> None:
        evict = self.algorithm.evict
        if evict is None or layer in self.rules.dense_layers:
            return
        rows = batch.stored_rows(layer)
        num_slots = -(-max(rows.longest, 1) // self._size) * self._size
        self.memory.drop_slots(rows, evict.keep(rows.num_tokens_R, batch.new, num_slots))

    def _index(self, layer: int, batch: Batch, key_NKD: Tensor) -> None:
        retrieve = self._retriever(layer)
        if retrieve is None:
            return
        assert self.index is not None
        size = retrieve.partition_size
        rows_R = batch.index_rows(layer)
        if batch.starts_any(size * SEGMENT):
            self.index.reserve(rows_R, -(-batch.longest // size))
        if batch.new > 1:
            self._build(retrieve, layer, batch)
            return
        partition_R = batch.stored_R // size
        old = self.index.read_at(rows_R, partition_R)
        grown = retrieve.append(old, batch.stored_R % size, _by_row(key_NKD, 1))
        self.index.write(rows_R, partition_R, grown)

    def _build(self, retrieve: Retriever, layer: int, batch: Batch) -> None:
        """Summarise every partition that a chunk of one sequence touched, from its pages."""
        assert self.index is not None
        size, stop = retrieve.partition_size, batch.longest
        first_page = (stop - batch.new) // self._size
        pages_KP = batch.pages(layer, first_page, -(-stop // self._size))
        frames_KP = self.memory.table.frame_TP[0, pages_KP]
        keys_KTD = self.memory.pool_FPSD[frames_KP, 0].flatten(1, 2)
        partition_P = torch.arange(
            (stop - batch.new) // size, -(-stop // size), device=pages_KP.device
        )
        skipped = int(partition_P[0]) * size - first_page * self._size
        keys_KPSD = keys_KTD[:, skipped:][:, : len(partition_P) * size].unflatten(1, (-1, size))
        token_PS = partition_P.unsqueeze(1) * size + torch.arange(size, device=pages_KP.device)
        live_KPS = (token_PS < stop).expand(len(pages_KP), -1, -1)
        built = retrieve.build(keys_KPSD.flatten(0, 1), live_KPS.flatten(0, 1))
        rows_K = batch.index_rows(layer)
        rows_N = rows_K.repeat_interleave(len(partition_P))
        self.index.write(rows_N, partition_P.repeat(len(rows_K)), built)

    def _select(
        self, retrieve: Retriever, layer: int, batch: Batch, query_NGD: Tensor
    ) -> PageSelection:
        scores_NGP = self._score(retrieve, layer, batch, query_NGD)
        rows, visible = batch.query_rows(layer), batch.visible
        alive = self.memory.table.alive(rows, retrieve.partition_size)
        if alive is not None:
            visible = Visible(rows.num_tokens_R, rows.longest, alive)
        selection = retrieve.select(scores_NGP, visible)
        return self._mapper.to_pages(selection, rows, self._size, self.memory.table.dead_P)

    def _score(self, retrieve: Retriever, layer: int, batch: Batch, query_NGD: Tensor) -> Tensor:
        """Relevance of each row's partitions to its queries, float32 [N, G, P]."""
        assert self.index is not None
        rows_R = batch.index_rows(layer)
        num_partitions = -(-batch.longest // retrieve.partition_size)
        query_RQD = query_NGD.view(len(rows_R), -1, query_NGD.shape[-1])
        if retrieve.scored is None:
            scores_RQP = retrieve.score(self.index.read(rows_R, num_partitions), query_RQD)
        else:
            pool_NCE, directory_RW = self.index.segments(retrieve.scored, rows_R, num_partitions)
            query_RQE = retrieve.scoring_query(query_RQD)
            scores_RQP = self.kernel.score(query_RQE, pool_NCE, directory_RW, num_partitions)
        return scores_RQP.reshape(*query_NGD.shape[:2], -1)

    def _attend(
        self, query_NGD: Tensor, pages: PageSelection, scale: float, *, at_once: bool, shared: bool
    ) -> Attended:
        """Attend selected pages: all of them at one time, or in waves that the tier holds."""
        count = pages.pages_N.numel()
        waves = [(0, count)] if at_once else self.memory.waves(count)
        attended = None
        for start, stop in waves:
            wanted_N = pages.pages_N[start:stop]
            self.memory.fetch(wanted_N.unique() if shared else wanted_N)
            frames_N = self.memory.table.frame_TP[0, wanted_N]
            indptr_R1 = pages.indptr_R1.clamp(start, stop) - start
            chosen = FrameSelection(indptr_R1, frames_N, pages.live_N[start:stop])
            part = self.kernel.decode(query_NGD, self.memory.pool_FPSD, chosen, scale)
            attended = part if attended is None else merge(attended, part)
        assert attended is not None, "a row always sees itself"
        return attended

    def _count_read(self, batch: Batch, pages: PageSelection) -> None:
        count, read = self.memory.counters.current, pages.pages_N.numel()
        count.pages_read += read
        count.bytes_read += read * self.memory.geometry.page_bytes
        count.slots_wanted += pages.wanted
        count.slots_context += batch.slots_context


def _by_row(tensor_NKD: Tensor, new: int) -> Tensor:
    """Packed tokens [B * M, K, D] in the order of rows and their tokens, [B * K * M, D]."""
    if new == 1:
        return tensor_NKD.flatten(0, 1)
    return tensor_NKD.unflatten(0, (-1, new)).transpose(1, 2).flatten(0, 2)
