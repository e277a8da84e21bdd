"""One layer of attention over paged KV: the algorithm and the memory, joined.

Index = build or append, Offload = write, Select = score and select, Retrieve = plan and execute,
Attention = attend: the five operations of SPIN (arXiv:2604.26837, section 4.1).
"""

from dataclasses import dataclass

from torch import Tensor

from backends.attention.base import Attended, AttentionKernel, FrameSelection, merge
from backends.batch import Batch
from backends.chunk_attention import ChunkAttention
from backends.drawn import Drawn
from backends.index import Index
from backends.summarise import Arrived
from memory_tiers.base import PageSelection
from memory_tiers.manager import CacheManager
from memory_tiers.trace_recorder import TraceRecorder
from sparse_algos.base import Algorithm
from sparse_algos.selection import Selection


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
        memory: CacheManager,
        index: Index | None,
        kernel: AttentionKernel,
        rules: LayerRules,
        prefetch: bool = False,
    ) -> None:
        """Join the parts; `index` is there exactly when the algorithm retrieves."""
        assert (index is None) == (algorithm.retrieve is None)
        self.algorithm = algorithm
        self.memory = memory
        self.index = index
        self.kernel = kernel
        self.rules = rules
        self.recorder: TraceRecorder | None = None
        self._size = memory.geometry.page_tokens
        self._prefetch = prefetch and len(memory.levels) > 1
        self._last_pages: dict[int, Tensor] = {}

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
        self._record(layer, batch, None)
        self.store(layer, batch, query_MHD, key_MKD, value_MKD)
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
        if (index := self._index_of(layer)) is not None:
            index.rebuild(layer, batch)
        self.store(layer, batch, *(one.flatten(0, 1) for one in (query_BMHD, key_BMKD, value_BMKD)))
        num_heads = self.memory.geometry.num_kv_heads
        query_BKMGD = query_BMHD.unflatten(2, (num_heads, -1)).transpose(1, 2)
        query_NGD = query_BKMGD.flatten(0, 2).contiguous()
        if index is not None and batch.new == 1:
            attended = self._decode(index, layer, batch, query_NGD, scale)
        else:
            attended = self._attend_rows(index, layer, batch, query_NGD, scale)
        out_BKMGD = attended.out.view(query_BKMGD.shape)
        return out_BKMGD.transpose(1, 2).flatten(2, 3)

    def store(
        self, layer: int, batch: Batch, query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor
    ) -> None:
        """Write packed keys and values, [B * M, K, D], to pages and summarise them."""
        key_ND, value_ND = (_by_row(one, batch.new) for one in (key_NKD, value_NKD))
        self.memory.write(
            batch.write_pages(layer),
            batch.write_slots_N,
            key_ND,
            value_ND,
            shared=batch.new > 1,
        )
        if (index := self._index_of(layer)) is not None:
            query_NKGD = query_NHD.unflatten(1, (self.memory.geometry.num_kv_heads, -1))
            arrived = Arrived(key_ND, value_ND, _by_row(query_NKGD, batch.new))
            index.update(layer, batch, arrived)

    def acts_on(self, layer: int) -> bool:
        """Whether a role of the algorithm acts on this layer."""
        return not self.algorithm.is_dense and layer not in self.rules.dense_layers

    def pages_for(self, num_tokens: int) -> int:
        """Pages that a sequence takes at most, over all layers and kv heads."""
        geometry = self.memory.geometry
        waste = 0 if self.index is None else self.index.waste_pages(num_tokens)
        rows = geometry.num_layers * geometry.num_kv_heads
        return geometry.pages_for(num_tokens) + rows * waste

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        if self.recorder is not None:
            self.recorder.end(slot)
        self.memory.release(slot)
        if self.index is not None:
            self.index.release(slot)

    def _record(self, layer: int, batch: Batch, selection: Selection | None) -> None:
        if self.recorder is not None:
            phase = self.memory.counters.phase
            self.recorder.record(phase, layer, batch.slots, batch.stored, batch.new, selection)

    def _index_of(self, layer: int) -> Index | None:
        return self.index if layer not in self.rules.dense_layers else None

    def _evict(self, layer: int, batch: Batch) -> None:
        evict = self.algorithm.evict
        if evict is None or layer in self.rules.dense_layers:
            return
        rows = batch.stored_rows(layer)
        num_slots = -(-max(rows.longest, 1) // self._size) * self._size
        self.memory.drop_slots(rows, evict.keep(rows.num_tokens_R, batch.new, num_slots))

    def _decode(
        self, index: Index, layer: int, batch: Batch, query_RGD: Tensor, scale: float
    ) -> Attended:
        """Decode rows, in one call where the kernel can and every page is in the fast tier."""
        fused = self.kernel.fused
        trace = self.recorder is not None
        step = index.step_inputs(layer, batch, query_RGD, scale, trace=trace) if fused else None
        if step is None:
            return self._attend_rows(index, layer, batch, query_RGD, scale)
        done = self.kernel.decode_step(step)
        pages = PageSelection(done.indptr_R1, done.pages_N, done.live_N, done.wanted)
        self._record(layer, batch, done.partitions)
        self._count_read(batch, pages)
        if done.attended is None:
            return self._attend_at_once(layer, query_RGD, pages, scale)
        self.memory.hit(done.pages_N, done.frames_N)
        self._prefetch_next(layer, done.pages_N, done.frames_N)
        # The kernel's next step takes the same room.
        return Attended(done.attended.out.clone(), done.attended.lse)

    def _attend_rows(
        self, index: Index | None, layer: int, batch: Batch, query_NGD: Tensor, scale: float
    ) -> Attended:
        """Select, attend, and add what is estimated of the rest, one operation after the other."""
        selected = None if index is None else index.select(layer, batch, query_NGD)
        if index is None or selected is None or index.reads_all(layer):
            pages = batch.every_page(layer, self.rules.window_of(layer))
            self._record(layer, batch, None)
            self._count_read(batch, pages)
            return self._attend_in_waves(query_NGD, pages, scale, shared=batch.new > 1)
        self._record(layer, batch, selected.partitions)
        self._count_read(batch, selected.pages)
        drawn = index.drawn(layer, batch, query_NGD, selected)
        if batch.new == 1:
            attended = self._attend_at_once(layer, query_NGD, selected.pages, scale, drawn)
        else:
            attended = self._attend_in_waves(
                query_NGD, selected.pages, scale, shared=True, drawn=drawn
            )
        if index.retrieve.estimates:
            rest = index.estimated(layer, batch, query_NGD, selected, attended, scale)
            attended = merge(attended, rest)
        return attended

    def _attend_at_once(
        self,
        layer: int,
        query_NGD: Tensor,
        pages: PageSelection,
        scale: float,
        drawn: Drawn | None = None,
    ) -> Attended:
        """Attend the selected pages of decode rows, all in the fast tier at one time."""
        frames_N = self.memory.fetch(pages.pages_N, mandatory=True).frames_N
        self._prefetch_next(layer, pages.pages_N, frames_N)
        chosen = FrameSelection(pages.indptr_R1, frames_N, pages.live_N)
        return self._attend(query_NGD, chosen, scale, drawn, 0)

    def _prefetch_next(self, layer: int, pages_N: Tensor, frames_N: Tensor) -> None:
        """Load what the next layer read in its last step, while this one attends."""
        if not self._prefetch:
            return
        self._last_pages[layer] = pages_N.clone()
        predicted_N = self._last_pages.get(layer + 1)
        if predicted_N is not None:
            self.memory.prefetch(predicted_N, keep_N=frames_N)

    def _attend_in_waves(
        self,
        query_NGD: Tensor,
        pages: PageSelection,
        scale: float,
        *,
        shared: bool,
        drawn: Drawn | None = None,
    ) -> Attended:
        """Attend selected pages in parts that the fast tier holds; shared: rows share pages."""
        attended = None
        for start, stop in self.memory.waves(pages.pages_N.numel()):
            wanted_N = pages.pages_N[start:stop]
            if shared:
                self.memory.fetch(wanted_N.unique())
                frames_N = self.memory.frames(wanted_N)
            else:
                frames_N = self.memory.fetch(wanted_N, mandatory=True).frames_N
            indptr_R1 = pages.indptr_R1.clamp(start, stop) - start
            chosen = FrameSelection(indptr_R1, frames_N, pages.live_N[start:stop])
            part = self._attend(query_NGD, chosen, scale, drawn, start)
            attended = part if attended is None else merge(attended, part)
        assert attended is not None, "a row always sees itself"
        return attended

    def _attend(
        self,
        query_NGD: Tensor,
        chosen: FrameSelection,
        scale: float,
        drawn: Drawn | None,
        first: int,
    ) -> Attended:
        """Attend the frames of selected pages, `first` of which came in earlier waves."""
        pool_FPSD = self.memory.pool_FPSD
        if drawn is not None:
            chosen = drawn.corrected(self.kernel, query_NGD, pool_FPSD, chosen, first)
        return self.kernel.decode(query_NGD, pool_FPSD, chosen, scale)

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
