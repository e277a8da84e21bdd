"""The project's own attention over the cache of one engine of vLLM."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from backends.attention.base import AttentionKernel
from backends.batch import Batch
from backends.index import Index
from backends.paged_attention import PagedAttention
from backends.row_attention import LayerRules
from backends.step import Chunk, Step
from backends.vllm.composition import Composition
from backends.vllm.pages import BlockLayout
from backends.vllm.rows import Limits, Member, Rows, sort_rows
from backends.vllm.tables import BlockMemory, BlockSummaries, HeldMemory
from memory_tiers.base import KVGeometry
from memory_tiers.page_table import PageTable


@dataclass(frozen=True)
class EngineStep:
    """The rows of one forward pass, on whichever layer is asked."""

    runtime: "Runtime"
    rows: Rows
    step: Step

    @property
    def num_rows(self) -> int:
        """Query rows, N."""
        return self.rows.num_rows

    def attend(
        self, layer: int, query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, scale: float
    ) -> Tensor:
        """Store the keys and values of all rows, and attend them: [N, H, D]."""
        self.runtime.enter(layer, self.rows)
        order_N = self.rows.order_N
        if order_N is not None:
            query_NHD, key_NKD, value_NKD = (
                one[order_N] for one in (query_NHD, key_NKD, value_NKD)
            )
        out_NHD = self.step.attend(layer, query_NHD, key_NKD, value_NKD, scale)
        self.runtime.leave(layer, self.rows)
        if order_N is None:
            return out_NHD
        return out_NHD.new_empty(out_NHD.shape).index_copy_(0, order_N, out_NHD)


class Runtime:
    """Attention, summaries and counters of one engine.

    num_rows: query rows that were attended, by layer and by whether the algorithm chose what they
    read.
    """

    def __init__(
        self,
        composition: Composition,
        geometry: KVGeometry,
        layout: BlockLayout,
        limits: Limits,
        kernel: AttentionKernel,
        caches: Sequence[Tensor],
    ) -> None:
        """Take hold of the layers' caches, [B, K, N, C]; raises ValueError where KV has no room."""
        self.composition = composition
        self.layout = layout
        self.num_rows: Counter[tuple[int, bool]] = Counter()
        max_tokens = -(-limits.max_tokens // layout.block_tokens) * layout.block_tokens
        table = PageTable(geometry, limits.num_sequences, max_tokens, layered=False)
        self.memory: BlockMemory = (
            HeldMemory(table, layout, caches)
            if composition.hosting is None
            else composition.hosting.memory(table, layout, caches)
        )
        self.summaries = self._summaries(layout, table, caches)
        algorithm = composition.algorithm
        self.attention = PagedAttention(
            algorithm=algorithm,
            memory=self.memory,
            index=self._index(kernel),
            kernel=kernel,
            rules=LayerRules(frozenset(range(algorithm.dense_layers)), frozenset(), None),
        )

    def begin(self, members: Sequence[Member], blocks_BW: Tensor) -> EngineStep:
        """Of a step over these requests, whose blocks are int32 [B, W]."""
        self.memory.assign(members, blocks_BW)
        if self.summaries is not None:
            self.summaries.assign(blocks_BW)
        rows, table = sort_rows(members), self.memory.table
        decode = None
        if rows.decode:
            stored = tuple(members[slot].stored for slot in rows.decode)
            decode = Batch(table, rows.decode, stored, 1)
        chunks = tuple(
            Chunk(
                Batch(table, (one.slot,), (one.stored,), one.num_rows, one.ends_context),
                one.is_question,
            )
            for one in rows.pieces
        )
        self._count(rows)
        return EngineStep(self, rows, Step(self.attention, decode, chunks))

    def enter(self, layer: int, rows: Rows) -> None:
        """Serve this layer from now on."""
        self.memory.enter(layer)
        if self.summaries is not None:
            self.summaries.enter(layer)
        chosen = rows.num_chosen if self.attention.acts_on(layer) else 0
        self.num_rows[layer, True] += chosen
        self.num_rows[layer, False] += rows.num_rows - chosen

    def leave(self, layer: int, rows: Rows) -> None:
        """This layer is through."""
        if rows.decode and layer == self.memory.geometry.num_layers - 1:
            self.memory.end_step()

    def _summaries(
        self, layout: BlockLayout, table: PageTable, caches: Sequence[Tensor]
    ) -> BlockSummaries | None:
        if (retrieve := self.composition.algorithm.retrieve) is None:
            return None
        geometry = table.geometry
        spec = retrieve.summary_spec(geometry.head_dim, geometry.dtype)
        return BlockSummaries(spec, layout, table, len(caches[0]), len(caches))

    def _index(self, kernel: AttentionKernel) -> Index | None:
        if self.summaries is None:
            return None
        retrieve = self.composition.algorithm.retrieve
        assert retrieve is not None
        return Index(retrieve, self.composition.mapper, self.summaries, self.memory, kernel)

    def _count(self, rows: Rows) -> None:
        counters = self.memory.counters
        counters.decode.steps += bool(rows.decode)
        counters.decode.rows += len(rows.decode)
        for piece in rows.pieces:
            phase = counters.question if piece.is_question else counters.prefill
            phase.steps += 1
            phase.rows += piece.num_rows
