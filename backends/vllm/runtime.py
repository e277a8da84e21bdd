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
from backends.vllm.rows import Member, Rows, sort_rows
from backends.vllm.tables import BlockFrames, BlockSummaries, BlockTier
from memory_tiers.base import KVGeometry
from memory_tiers.counters import Counters
from memory_tiers.level import Level
from memory_tiers.manager import CacheManager
from memory_tiers.page_table import PageTable


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one step of the engine may hold, and a sequence."""

    num_sequences: int
    max_tokens: int


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
        if order_N is None:
            return self.step.attend(layer, query_NHD, key_NKD, value_NKD, scale)
        query_NHD, key_NKD, value_NKD = (one[order_N] for one in (query_NHD, key_NKD, value_NKD))
        out_NHD = self.step.attend(layer, query_NHD, key_NKD, value_NKD, scale)
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
        pools: Sequence[Tensor],
    ) -> None:
        """Take hold of the layers' pools."""
        self.composition = composition
        self.layout = layout
        self.num_rows: Counter[tuple[int, bool]] = Counter()
        max_tokens = -(-limits.max_tokens // layout.block_tokens) * layout.block_tokens
        table = PageTable(geometry, limits.num_sequences, max_tokens, layered=False)
        self.tier = BlockTier(pools, geometry)
        self._frames = BlockFrames(layout, table)
        level = Level(self.tier, self._frames, None)
        self.memory = CacheManager(geometry, table, (level,), None, Counters())
        self.summaries = self._summaries(layout, table, len(pools))
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
        self._frames.assign(blocks_BW)
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
        self.tier.enter(layer)
        if self.summaries is not None:
            self.summaries.enter(layer)
        chosen = rows.num_chosen if self.attention.acts_on(layer) else 0
        self.num_rows[layer, True] += chosen
        self.num_rows[layer, False] += rows.num_rows - chosen

    def _summaries(
        self, layout: BlockLayout, table: PageTable, num_layers: int
    ) -> BlockSummaries | None:
        if (retrieve := self.composition.algorithm.retrieve) is None:
            return None
        geometry = table.geometry
        spec = retrieve.summary_spec(geometry.head_dim, geometry.dtype)
        frames_per_block = layout.pages_per_block * layout.num_kv_heads
        num_blocks = self.tier.num_frames // frames_per_block
        return BlockSummaries(spec, layout, table, num_blocks, num_layers)

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
