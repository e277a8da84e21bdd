"""What an algorithm keeps of the keys, and what it selects by: SPIN's Index and Select."""

from typing import NamedTuple

import torch
from torch import Tensor

from backends.attention.base import Attended, AttentionKernel, SelectRule, StepInputs
from backends.batch import Batch, Led
from backends.drawn import Drawn
from backends.summarise import Arrived, Summariser
from backends.value_means import ValueMeans
from memory_tiers.base import Layout, PageSelection, PartitionMapper
from memory_tiers.manager import CacheManager
from memory_tiers.summary_store import SummaryStore
from sparse_algos.index_data import Queries, Read, Summaries
from sparse_algos.retriever import Retriever
from sparse_algos.selection import Selection


class Selected(NamedTuple):
    """Partitions of each query row, the pages that hold them, and the scores of all partitions.

    scores_NGP: float32, see `Retriever.score`; None where another layer selected.
    """

    partitions: Selection
    pages: PageSelection
    scores_NGP: Tensor | None


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
        self._summariser = Summariser(retrieve, store, memory)
        self._values = ValueMeans(memory.table) if retrieve.needs_value_mean else None
        layers = range(memory.geometry.num_layers)
        self._in_kernel = (
            mapper.in_order
            and retrieve.takes_best
            and retrieve.scored is not None
            and not retrieve.pool_heads
            and (retrieve.shares or not retrieve.estimates)
            and (retrieve.waits is None or retrieve.group_reduce in ("max", "mean"))
            and all(map(retrieve.leads, layers))
        )
        self._step: _Step | None = None

    @property
    def peak_bytes(self) -> int:
        """Most bytes that were taken at one time."""
        more = 0 if self._values is None else self._values.num_bytes
        return self.store.peak_bytes + self._summariser.num_bytes + more

    def rebuild(self, layer: int, batch: Batch) -> None:
        """Form partitions anew where that is due, before the batch's tokens are stored."""

    def update(self, layer: int, batch: Batch, arrived: Arrived) -> None:
        """Summarise new keys, which are in their pages already."""
        if self._values is not None:
            self._values.add(layer, batch, arrived.value_ND)
        if self.retrieve.leads(layer):
            self._summariser.update(layer, batch, arrived)

    def restart(self, layer: int, rows_R: Tensor, key_RTD: Tensor, live_RT: Tensor) -> None:
        """Rows of the page table hold these keys now, and nothing else: bool [R, T] says which."""
        self.store.release(rows_R + layer * self._memory.table.num_rows)
        if self.retrieve.leads(layer):
            self._summariser.restart(layer, rows_R, key_RTD, live_RT)

    def rewind(self, layer: int, slot: int, num_tokens: int) -> None:
        """A sequence has only the tokens of its shared context, so many; nothing was evicted."""
        if self.retrieve.leads(layer):
            self._summariser.rewind(layer, slot, num_tokens)

    def rewind_values(self, layer: int, slot: int) -> None:
        """Values behind the shared context of a sequence count no more, those evicted still do."""
        if self._values is not None:
            self._values.rewind(layer, slot, self._rows_of(layer, slot))

    def select(self, layer: int, batch: Batch, query_NGD: Tensor) -> Selected | None:
        """What each query row reads; None where it reads everything."""
        scores_NGP = None
        if self.retrieve.leads(layer):
            scores_NGP = self._score(layer, batch, query_NGD)
            selection = self._select(layer, batch, scores_NGP)
            batch.led[:] = [Led(layer, selection, self._pages(layer, batch, selection))]
        if self.retrieve.reads_all(layer):
            return None
        led = batch.led_to(layer)
        pages = led.pages
        if scores_NGP is None and self._memory.table.dead_P is not None:
            pages = self._pages(layer, batch, led.partitions)
        return Selected(led.partitions, pages, scores_NGP)

    def choose(self, layer: int, batch: Batch, query_NGD: Tensor) -> Selection:
        """The partitions that each query row reads on a layer that leads."""
        return self._select(layer, batch, self._score(layer, batch, query_NGD))

    def drawn(
        self, layer: int, batch: Batch, query_NGD: Tensor, selected: Selected
    ) -> Drawn | None:
        """How to correct the logits of what was selected; None where they stay as they are."""
        return None

    def estimated(
        self,
        layer: int,
        batch: Batch,
        query_NGD: Tensor,
        selected: Selected,
        read: Attended,
        scale: float,
    ) -> Attended:
        """What the retriever adds for what was not read."""
        assert selected.scores_NGP is not None
        partitions = selected.partitions
        known = Read(
            query_NGD,
            selected.scores_NGP,
            read.lse,
            partitions,
            self._estimated_summaries(layer, batch, partitions),
            self._mean_values(layer),
            scale,
            partitions.share_RG,
        )
        return self._estimate(known)

    def rest(
        self, layer: int, query_RGD: Tensor, share_RG: Tensor, read: Attended, scale: float
    ) -> Attended:
        """The same for a retriever that `shares`, by what the kernel has told."""
        mean_RD = self._mean_values(layer)
        return self._estimate(Read(query_RGD, None, read.lse, None, {}, mean_RD, scale, share_RG))

    def _mean_values(self, layer: int) -> Tensor | None:
        return None if self._values is None else self._values.mean_ND(layer)

    def _estimate(self, read: Read) -> Attended:
        estimate, query_NGD = self.retrieve.estimate(read), read.query_RGD
        return Attended(estimate.out_RGD.to(query_NGD.dtype), estimate.lse_RG)

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
        queries = self._queries(layer, batch, query_RGD, self._step.num_partitions)
        return StepInputs(
            query_RGD=query_RGD,
            pool_FPSD=self._memory.pool_FPSD,
            scale=scale,
            scoring_RQE=self.retrieve.scoring_query(queries),
            segments_NCE=segments.pool_NCE,
            directory_RW=segments.directory_RW,
            num_tokens_R=batch.visible.num_tokens_R,
            first_page_R=self._memory.table.first_page(layer, batch.rows_R),
            columns_R=self._step.columns_R,
            rule=self._step.rule,
            table=self._memory.fast.table.view(),
            trace=trace,
        )

    def release(self, slot: int) -> None:
        """Forget a sequence."""
        for layer in range(self._memory.geometry.num_layers):
            rows_K = self._rows_of(layer, slot)
            self.store.release(rows_K)
            self._summariser.release(layer, slot)
            if self._values is not None:
                self._values.release(layer, slot, rows_K)

    def waste_pages(self, num_tokens: int) -> int:
        """Pages that a row of so many tokens takes at most beyond those of its tokens."""
        return self._mapper.waste_pages(self.retrieve.most_partitions(num_tokens))

    def _rows_of(self, layer: int, slot: int) -> Tensor:
        """Rows of a layer of a sequence, as the stores number them."""
        table = self._memory.table
        rows_K = table.rows_of(torch.tensor([slot], device=table.device))
        return rows_K + layer * table.num_rows

    def _step_of(self, batch: Batch) -> _Step:
        """What the layers of a step have in common."""
        retrieve = self.retrieve
        rule = SelectRule(
            columns=retrieve.most_columns(batch.longest),
            partition_size=retrieve.partition_size,
            sinks=retrieve.sinks,
            recents=retrieve.recents,
            group_reduce=retrieve.group_reduce,
            shares=retrieve.shares and retrieve.estimates,
        )
        return _Step(batch, rule, retrieve.columns(batch.visible), self._num_partitions(batch))

    def _pages(self, layer: int, batch: Batch, selection: Selection) -> PageSelection:
        """The pages that hold what was selected."""
        layout = Layout(
            page_tokens=self._page_tokens,
            partition_size=self.retrieve.partition_size,
            dead_P=self._memory.table.dead_P,
        )
        return self._mapper.to_pages(selection, batch.query_rows(layer), layout)

    def _num_partitions(self, batch: Batch) -> int:
        return -(-batch.longest // self.retrieve.partition_size)

    def _queries(self, layer: int, batch: Batch, query_NGD: Tensor, partitions: int) -> Queries:
        """The queries, a row of the index each."""
        query_RQD = query_NGD.view(len(batch.rows_R), -1, query_NGD.shape[-1])
        return Queries(query_RQD, batch.positions_RM, layer, partitions)

    def _score(self, layer: int, batch: Batch, query_NGD: Tensor) -> Tensor:
        """Relevance of each row's partitions to its queries, float32 [N, G, P]."""
        return self._scores_of(layer, batch, query_NGD, self._num_partitions(batch))

    def _scores_of(self, layer: int, batch: Batch, query_NGD: Tensor, partitions: int) -> Tensor:
        rows_R, retrieve = batch.index_rows(layer), self.retrieve
        queries = self._queries(layer, batch, query_NGD, partitions)
        if retrieve.scored is None:
            scores_RQP = retrieve.score(self.store.read(rows_R, partitions), queries)
        else:
            pool_NCE, directory_RW = self.store.segments(retrieve.scored, rows_R, partitions)
            query_RQE = retrieve.scoring_query(queries)
            scores_RQP = self._kernel.score(query_RQE, pool_NCE, directory_RW, partitions)
        return scores_RQP.reshape(*query_NGD.shape[:2], -1)

    def _select(self, layer: int, batch: Batch, scores_NGP: Tensor) -> Selection:
        rows, visible = batch.query_rows(layer), batch.visible
        alive = self._memory.table.alive(rows, self.retrieve.partition_size)
        if alive is not None:
            visible = batch.visible_where(alive)
        return self.retrieve.select(scores_NGP, visible, self._weighed(layer, batch))

    def _weighed(self, layer: int, batch: Batch) -> Summaries:
        """The summaries that the retriever looks at beside the scores, for each query row."""
        names = self.retrieve.weighed
        if not names:
            return {}
        read = self.store.read(batch.index_rows(layer), self._num_partitions(batch), names)
        return {name: one.repeat_interleave(batch.new, dim=0) for name, one in read.items()}

    def _estimated_summaries(self, layer: int, batch: Batch, selection: Selection) -> Summaries:
        if (estimated_NC := selection.estimated_RC) is None:
            return {}
        rows_N = batch.index_rows(layer).repeat_interleave(batch.new)
        rows_NC = rows_N.unsqueeze(1).expand_as(estimated_NC)
        return self.store.read_at(rows_NC, estimated_NC.clamp(min=0))
