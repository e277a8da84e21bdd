"""Rows that read what an algorithm selects: select, map, fetch, attend, estimate.

Index = build or append, Offload = write, Select = score and select, Retrieve = plan and execute,
Attention = attend: the five operations of SPIN (arXiv:2604.26837, section 4.1).
"""

from dataclasses import dataclass

from torch import Tensor

from backends.attention.base import Attended, AttentionKernel, FrameSelection, merge
from backends.batch import Batch
from backends.context import Tape
from backends.decode_reads import DecodeReads
from backends.drawn import Drawn
from backends.eviction import Eviction
from backends.index import Index
from backends.probe import Probe
from backends.received import Queries
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


class RowAttention:
    """Attention of single rows on all layers: decode rows, and those of questions."""

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
        self.eviction: Eviction | None = None
        if algorithm.evict is not None:
            served = [n for n in range(memory.geometry.num_layers) if self.acts_on(n)]
            self.eviction = Eviction(algorithm.evict, memory, served, index)
        self.recorder: TraceRecorder | None = None
        self.tape: Tape | None = None
        self.probe: Probe | None = None
        layers = range(memory.geometry.num_layers)
        self.reads = DecodeReads(memory.geometry, [rules.window_of(layer) for layer in layers])
        self._prefetch = prefetch and len(memory.levels) > 1
        self._last_pages: dict[int, Tensor] = {}

    def acts_on(self, layer: int) -> bool:
        """Whether a role of the algorithm chooses what single rows of this layer read."""
        return not self.algorithm.reads_all and layer not in self.rules.dense_layers

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
            attended = self._attend_at_once(layer, query_RGD, pages, scale)
        else:
            self.memory.hit(done.pages_N, done.frames_N)
            self._prefetch_next(layer, done.pages_N, done.frames_N)
            # The kernel's next step takes the same room.
            attended = Attended(done.attended.out.clone(), done.attended.lse)
        if done.share_RG is None:
            return attended
        if self.probe is not None:
            self.probe.read = attended
        return merge(attended, index.rest(layer, query_RGD, done.share_RG, attended, scale))

    def _attend_rows(
        self, index: Index | None, layer: int, batch: Batch, query_NGD: Tensor, scale: float
    ) -> Attended:
        """Select, attend, and add what is estimated of the rest, one operation after the other."""
        selected = None if index is None else index.select(layer, batch, query_NGD)
        if index is None or selected is None:
            pages = batch.every_page(layer, self.rules.window_of(layer))
            self._record(layer, batch, None)
            self._count_read(batch, pages)
            attended = self._attend_in_waves(query_NGD, pages, scale, shared=batch.new > 1)
            if index is None or batch.new > 1:
                self._receive(layer, batch, query_NGD, pages, attended, scale)
            return attended
        self._record(layer, batch, selected.partitions)
        self._count_read(batch, selected.pages)
        drawn = index.drawn(layer, batch, query_NGD, selected)
        attended = self._attend_selected(layer, batch, query_NGD, selected.pages, scale, drawn)
        if drawn is not None and self.probe is not None:
            true = drawn.uncorrected()
            pages = selected.pages
            self.probe.read = self._attend_selected(layer, batch, query_NGD, pages, scale, true)
        if index.retrieve.estimates:
            if self.probe is not None and self.probe.read is None:
                self.probe.read = attended
            rest = index.estimated(layer, batch, query_NGD, selected, attended, scale)
            attended = merge(attended, rest)
        return attended

    def _receive(
        self,
        layer: int,
        batch: Batch,
        query_NGD: Tensor,
        pages: PageSelection,
        attended: Attended,
        scale: float,
    ) -> None:
        """Tell the evictor what attention its slots received."""
        if (eviction := self._eviction_of(layer)) is not None:
            eviction.after_rows(layer, batch, pages, Queries(query_NGD, attended.lse, scale))

    def _attend_selected(
        self,
        layer: int,
        batch: Batch,
        query_NGD: Tensor,
        pages: PageSelection,
        scale: float,
        drawn: Drawn | None,
    ) -> Attended:
        if batch.new == 1:
            return self._attend_at_once(layer, query_NGD, pages, scale, drawn)
        attended = self._attend_in_waves(query_NGD, pages, scale, shared=True, drawn=drawn)
        self._receive(layer, batch, query_NGD, pages, attended, scale)
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
        if count is self.memory.counters.decode:
            self.reads.note(pages)

    def _record(self, layer: int, batch: Batch, selection: Selection | None) -> None:
        if self.recorder is not None:
            phase = self.memory.counters.phase
            self.recorder.record(phase, layer, batch.slots, batch.stored, batch.new, selection)

    def _index_of(self, layer: int) -> Index | None:
        return self.index if layer not in self.rules.dense_layers else None

    def _eviction_of(self, layer: int) -> Eviction | None:
        return self.eviction if layer not in self.rules.dense_layers else None
