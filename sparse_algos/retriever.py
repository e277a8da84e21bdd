"""The role that chooses what a decode query reads; all KV is kept, somewhere."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.checks import check_amount, check_count
from sparse_algos.scores import GroupReduce, dot_scores, reduce_group
from sparse_algos.selection import PartitionKind, Selection, Visible

Summaries = Mapping[str, Tensor]


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one named summary of one partition."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class Retriever(ABC):
    """Chooses which partitions a query reads; all KV is kept, somewhere.

    budget_tokens: tokens one kv head may read per query, or a share of the context if below 1;
    sinks and recents: first and last tokens that are always read, inside the budget;
    group_reduce: how the scores of the query heads of one kv head become one.

    kind: what a partition is; scored: the summary, a vector [E], whose dot products with
    `scoring_query` are the scores, which kernels then work out where it lies; None where scores are
    anything else, and `score` says what. takes_best: `select` is that of this class, which
    kernels may do by themselves.
    """

    budget_tokens: int | float
    sinks: int
    recents: int
    group_reduce: GroupReduce

    kind: ClassVar[PartitionKind]
    scored: ClassVar[str | None] = None
    takes_best: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        """A score of its own is not the dot product that kernels would compute instead."""
        super().__init_subclass__()
        if cls.score is not Retriever.score and cls.scored is not None:
            raise TypeError(f"{cls.__name__} overrides score, so it must declare scored = None")
        if cls.select is not Retriever.select and cls.takes_best:
            raise TypeError(f"{cls.__name__} overrides select: it must declare takes_best = False")

    def __post_init__(self) -> None:
        """Check the settings that all retrievers share."""
        check_amount("algo.retrieve.budget_tokens", self.budget_tokens)
        check_count("algo.retrieve.sinks", self.sinks, least=0)
        check_count("algo.retrieve.recents", self.recents, least=1)
        if self.group_reduce not in ("max", "mean", "mass"):
            raise ValueError(
                f"algo.retrieve.group_reduce={self.group_reduce!r}: use max, mean or mass"
            )
        if isinstance(self.budget_tokens, int) and self.budget_tokens < self.least_budget:
            raise ValueError(
                f"algo.retrieve.budget_tokens={self.budget_tokens} cannot hold the sinks and "
                f"recents, which take up to {self.least_budget} tokens; raise it, or lower "
                "algo.retrieve.sinks or algo.retrieve.recents"
            )

    @property
    @abstractmethod
    def partition_size(self) -> int:
        """Tokens in a partition, the fewest where they vary."""

    def most_partitions(self, num_tokens: int) -> int:
        """Partitions of one row that holds `num_tokens`, at most."""
        return -(-num_tokens // self.partition_size)

    @property
    def least_budget(self) -> int:
        """Tokens that the partitions of sinks and recents can take."""
        size = self.partition_size
        straddle = 0 if size == 1 else 1
        return (math.ceil(self.sinks / size) + math.ceil(self.recents / size) + straddle) * size

    @abstractmethod
    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The tensors kept per partition and kv head."""

    @abstractmethod
    def build(self, keys_NSD: Tensor, live_NS: Tensor) -> Summaries:
        """Summaries of N partitions from their keys; dead slots may hold anything."""

    @abstractmethod
    def append(self, old: Summaries, count_N: Tensor, key_ND: Tensor) -> Summaries:
        """Fold one more key into N partitions that hold count_N tokens (0: `old` is garbage)."""

    def scoring_query(self, query_RQD: Tensor) -> Tensor:
        """What the summary `scored` is multiplied with, [R, Q, E], in the query's dtype."""
        return query_RQD

    def score(self, summaries: Summaries, query_RQD: Tensor) -> Tensor:
        """Relevance of partitions to queries, float32 [R, Q, P], from summaries [R, P, ...]."""
        if self.scored is None:
            raise NotImplementedError(
                f"{type(self).__name__} neither names its `scored` summary nor defines `score`"
            )
        return dot_scores(summaries[self.scored], self.scoring_query(query_RQD))

    def most_tokens(self, context: int) -> int:
        """Tokens that one query may read when its sequence holds `context` tokens."""
        if isinstance(self.budget_tokens, int):
            return self.budget_tokens
        return max(self.least_budget, math.ceil(self.budget_tokens * context))

    def most_columns(self, context: int) -> int:
        """Partitions that one query may read when its sequence holds `context` tokens."""
        partitions = -(-context // self.partition_size)
        return min(self.most_tokens(context) // self.partition_size, partitions)

    def columns(self, visible: Visible) -> Tensor | None:
        """Partitions that each row may read, int64 [R]; None where the number is the same."""
        if isinstance(self.budget_tokens, int) or visible.shortest == visible.longest:
            return None
        # In float64, as most_tokens counts: float32 makes 4 tokens of 0.3 x 10.
        tokens_R = (visible.num_tokens_R.double() * self.budget_tokens).ceil().long()
        return tokens_R.clamp(min=self.least_budget) // self.partition_size

    def select(self, scores_RGP: Tensor, visible: Visible) -> Selection:
        """The best partitions of each row within its budget, sinks and recents first."""
        size = self.partition_size
        masks = visible.masks(scores_RGP.shape[-1], size, self.sinks, self.recents)
        scores_RGP = scores_RGP.masked_fill(masks.absent_RP.unsqueeze(1), -torch.inf)
        scores_RP = reduce_group(scores_RGP, self.group_reduce)
        scores_RP = scores_RP.masked_fill(masks.forced_RP, torch.inf)
        columns = min(self.most_tokens(visible.longest) // size, scores_RP.shape[1])
        best = scores_RP.topk(columns, dim=1)
        if self._fills(columns, visible):
            return Selection(best.indices.sort(dim=1).values, None)
        valid_RC = best.values > -torch.inf
        if (columns_R := self.columns(visible)) is not None:
            valid_RC &= torch.arange(columns, device=columns_R.device) < columns_R.unsqueeze(1)
        partitions_RC = best.indices.masked_fill(~valid_RC, scores_RP.shape[1])
        partitions_RC, order_RC = partitions_RC.sort(dim=1)
        return Selection(partitions_RC, valid_RC.gather(1, order_RC))

    def _fills(self, columns: int, visible: Visible) -> bool:
        """Whether the host knows that every row has a partition for every column."""
        same_budget = isinstance(self.budget_tokens, int) or visible.shortest == visible.longest
        enough = -(-visible.shortest // self.partition_size) >= columns
        return same_budget and enough and visible.alive_RP is None
