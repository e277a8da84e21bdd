"""The contract of an attention kernel: one signature, several implementations, one parity test."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from memory_tiers.base import TableView
from sparse_algos.pattern import BlockPlan, Chunk
from sparse_algos.scores import GroupReduce
from sparse_algos.selection import Selection


@dataclass(frozen=True)
class Attended:
    """Partial attention: the weighted values and the log-sum-exp that lets partials be merged.

    `out` has the query's shape and dtype; `lse` drops the last axis and is float32. A row that
    attended nothing has `out` = 0 and `lse` = -inf.
    """

    out: Tensor
    lse: Tensor


@dataclass(frozen=True)
class FrameSelection:
    """The frames that each row reads, as CSR.

    indptr_R1: int64 [R + 1]; frames_N: int32 or int64 [N], indices into the pool;
    live_N: int64 [N], bit s says that slot s counts (bit 63 is the sign bit). bias_GV: float32,
    added to the logits of the V live slots, in order, for each query head of a row; None for 0.
    """

    indptr_R1: Tensor
    frames_N: Tensor
    live_N: Tensor
    bias_GV: Tensor | None = None


@dataclass(frozen=True)
class SelectRule:
    """How a row chooses partitions by their scores, as `Retriever.select` does.

    columns: partitions that no row exceeds; partition_size: tokens in a partition; sinks and
    recents: first and last tokens whose partitions are always chosen, within the columns;
    group_reduce: how the scores of a row's queries become one; shares: whether to tell what share
    of the softmax of its scores each query has in what is chosen.

    A row takes as many partitions as it may and has. Equal scores prefer the lower partition. One
    that any query scores NaN, or whose summary is absent, comes after all that have a number.
    """

    columns: int
    partition_size: int
    sinks: int
    recents: int
    group_reduce: GroupReduce
    shares: bool = False


class StepInputs(NamedTuple):
    """What one layer of a decode step selects from, and attends.

    query_RGD [R, G, D], pool_FPSD [F, 2, S, D] and scale: see `AttentionKernel.decode`.
    scoring_RQE, segments_NCE and directory_RW: see `AttentionKernel.score`; Q = G, W * C partitions
    or more in every row that does not take all it has.
    num_tokens_R: int64 [R], a row sees tokens 0 .. n-1; first_page_R: int64 [R], id of the row's
    page 0 in this layer; columns_R: int64 [R], the partitions of each row where they differ.
    table: where the pages are; trace: whether the partitions are to be told as well.

    The layers of a decode step share num_tokens_R, one object: inputs that do have equal shapes.
    """

    query_RGD: Tensor
    pool_FPSD: Tensor
    scale: float
    scoring_RQE: Tensor
    segments_NCE: Tensor
    directory_RW: Tensor
    num_tokens_R: Tensor
    first_page_R: Tensor
    columns_R: Tensor | None
    rule: SelectRule
    table: TableView
    trace: bool = False


class StepOutcome(NamedTuple):
    """What a step selected, as CSR, and what it attended: None where a page is missing.

    indptr_R1: int64 [R + 1]; pages_N: int64 [N] page ids, ascending in a row; frames_N: int32 [N],
    -1 where a page is not resident; live_N: int64 [N], see FrameSelection. wanted: tokens of the
    partitions; missing: pages that are not resident; partitions: what was traced, -1 in the
    columns that a row does not use; share_RG: float32, of the softmax of the scores of all that the
    row has, where the rule shares, 1 where it reads all. All but the partitions may be overwritten
    by the kernel's next step.
    """

    attended: Attended | None
    indptr_R1: Tensor
    pages_N: Tensor
    frames_N: Tensor
    live_N: Tensor
    wanted: int
    missing: int
    partitions: Selection | None = None
    share_RG: Tensor | None = None


class AttentionKernel(ABC):
    """Attention over KV pages. Implementations agree within rounding.

    They keep nothing but room for the answers of the next step: one engine, one kernel.
    """

    name: str
    # Whether `decode_step` is one call, worth more than the parts that it is made of.
    fused: ClassVar[bool] = False

    @abstractmethod
    def decode(
        self, query_RGD: Tensor, pool_FPSD: Tensor, selection: FrameSelection, scale: float
    ) -> Attended:
        """Attend one query group per row over the row's selected frames.

        query_RGD [R, G, D]; pool_FPSD [F, 2, S, D], keys then values, S <= 64. One dtype.
        """

    @abstractmethod
    def products(self, query_RGD: Tensor, pool_FPSD: Tensor, selection: FrameSelection) -> Tensor:
        """Dot products of a row's queries with the keys of its V live slots, float32 [G, V]."""

    @abstractmethod
    def prefill(
        self,
        query_KMD: Tensor,
        key_KTD: Tensor,
        value_KTD: Tensor,
        mask_MT: Tensor | None,
        scale: float,
    ) -> Attended:
        """Attend M query rows per kv head over T contiguous tokens.

        mask_MT is bool [M, T], True where a row sees a token; None means it sees all. A row that
        sees nothing yields out 0 and lse -inf.
        """

    @abstractmethod
    def prefill_causal(
        self, query_KMD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scale: float
    ) -> Attended:
        """Attend the rows of T new tokens to those tokens: row m sees the first m % T + 1.

        M is a multiple of T, the query heads of a kv head one after the other.
        """

    @abstractmethod
    def prefill_blocks(self, plan: BlockPlan, chunk: Chunk, value_KTD: Tensor) -> Tensor:
        """Attend the rows of a chunk by the blocks and columns of a plan: [K, G, M, D].

        Keys and values have room for whole blocks of the grid, or for more, and hold zeros behind
        the last token; what the plan does not choose may be anything.
        """

    @abstractmethod
    def score(
        self, query_RQE: Tensor, segments_NCE: Tensor, directory_RW: Tensor, num_partitions: int
    ) -> Tensor:
        """Dot products of queries with the first P summaries of each row, float32 [R, Q, P].

        segments_NCE: the pool of segments of C summaries, in the query's dtype; directory_RW: int64
        [R, W], each row's segments in order, W * C >= P. The columns of a segment that is absent,
        -1, hold any number; none may be absent where C is not 64, which it divides. A segment may
        lie entry by entry, [E, C] in memory; entries that are 0 in all queries of a row may be
        skipped then.
        """

    @abstractmethod
    def select(self, step: StepInputs) -> StepOutcome:
        """Score, choose partitions, find their pages and the frames of these; attend nothing."""

    @abstractmethod
    def decode_step(self, step: StepInputs) -> StepOutcome:
        """`select`, then `decode` of what was selected if all of it is resident."""


def merge(first: Attended, second: Attended) -> Attended:
    """Join two partial attentions over disjoint keys; float32 inside, the query's dtype outside."""
    lse = torch.logaddexp(first.lse, second.lse)
    weight = torch.where(torch.isneginf(lse), 0.0, torch.exp(second.lse - lse)).unsqueeze(-1)
    out = torch.lerp(first.out.float(), second.out.float(), weight)
    return Attended(out.to(first.out.dtype), lse)
