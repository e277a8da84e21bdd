"""The role that chooses what a decode query reads; all KV is kept, somewhere."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sparse_algos.checks import check_amount, check_count
from sparse_algos.index_data import (
    NOTHING,
    Estimate,
    Keys,
    NewKeys,
    Queries,
    Read,
    Summaries,
    TensorSpec,
)
from sparse_algos.model_shape import ModelShape
from sparse_algos.scores import GroupReduce, dot_scores, reduce_group, share_of
from sparse_algos.selection import PartitionKind, Selection, Visible

# What keeps a retriever's summaries: see harness/system.py.
IndexKind = Literal["summaries", "clusters", "pruned", "hashed", "rebuilt"]


@dataclass(frozen=True, kw_only=True)
class Retriever(ABC):
    """Chooses which partitions a query reads; all KV is kept, somewhere.

    budget_tokens: tokens one kv head may read per query, or a share of the context if below 1;
    sinks and recents: first and last tokens that are always read, inside the budget;
    group_reduce: how the scores of the query heads of one kv head become one; pool_heads: whether
    all kv heads of a sequence read the same partitions, those of the best mean score.

    kind: what a partition is; scored: the summary, a vector [E], whose dot products with
    `scoring_query` are the scores, which kernels then work out where it lies; None where scores are
    anything else, and `score` says what. takes_best: `select` is that of this class, which
    kernels may do by themselves. weighed: summaries that `select` looks at beside the scores.
    estimates: `estimate` adds something to what was read. shares: of what was selected, `estimate`
    looks at nothing but its share of the softmax of the scores, which kernels tell. corrects:
    logits of what is read are changed, as a selection's bias and draws say. trained: what `weights`
    holds, None where nothing is trained or calibrated. needs_positions: token t lies in slot t,
    which evictors undo. bound: it is there to be compared with, above or below all that can be
    served. rebuilds_keys: keys are replaced by what it rebuilds them from, once the context is
    complete. index_kind: when summaries are formed, and of what.
    """

    budget_tokens: int | float
    sinks: int
    recents: int
    group_reduce: GroupReduce
    pool_heads: bool = False
    _tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    kind: ClassVar[PartitionKind]
    index_kind: ClassVar[IndexKind] = "summaries"
    scored: ClassVar[str | None] = None
    takes_best: ClassVar[bool] = True
    weighed: ClassVar[tuple[str, ...]] = ()
    shares: ClassVar[bool] = False
    corrects: ClassVar[bool] = False
    needs_value_mean: ClassVar[bool] = False
    needs_positions: ClassVar[bool] = False
    trained: ClassVar[str | None] = None
    bound: ClassVar[bool] = False
    rebuilds_keys: ClassVar[bool] = False

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
        if self.group_reduce not in ("max", "mean", "mass", "peak"):
            raise ValueError(
                f"algo.retrieve.group_reduce={self.group_reduce!r}: use max, mean, mass or peak"
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

    @property
    def typical_partition(self) -> int:
        """Tokens in a partition, on average where they vary."""
        return self.partition_size

    def kept_bytes(self, head_dim: int, num_kv_heads: int, dtype: torch.dtype) -> float:
        """Bytes kept beside KV per token and kv head, on layers that select."""
        spec = self.summary_spec(head_dim, dtype).values()
        kept = sum(math.prod(one.shape) * one.dtype.itemsize for one in spec)
        return kept / self.typical_partition + self.other_bytes(num_kv_heads, dtype)

    def other_bytes(self, num_kv_heads: int, dtype: torch.dtype) -> float:
        """Bytes per token and kv head that are kept beside summaries."""
        return 0

    @property
    def waits(self) -> int | None:
        """When a partition is summarised: once it is complete and so many tokens follow it.

        None: from its first token on, and `append` folds in each more. What is not summarised
        must be read by all rows, so recents may not be fewer.
        """
        return None

    @property
    def needs_queries(self) -> bool:
        """Whether `build` looks at queries, see Keys."""
        return False

    @property
    def estimates(self) -> bool:
        """Whether `estimate` adds something to what was read."""
        return False

    @property
    def prunes(self) -> bool:
        """Whether a row may read less than its budget and its context both allow."""
        return False

    def fitted(self, model: ModelShape) -> "Retriever":
        """This retriever with what it needs of a model; raises ValueError where it cannot serve."""
        return self

    def leads(self, layer: int) -> bool:
        """Whether rows select on this layer; elsewhere they read what the last leader selected."""
        return True

    def reads_all(self, layer: int) -> bool:
        """Whether attention is dense on this layer, whatever is selected there for others."""
        return False

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
    def build(self, keys: Keys) -> Summaries:
        """Summaries of partitions, [R, P, ...]; dead slots may hold anything."""

    def append(self, old: Summaries, new: NewKeys) -> Summaries:
        """Fold one more key into the partitions `old` [R, ...]; those of 0 tokens are garbage."""
        raise NotImplementedError(f"{type(self).__name__} waits until a partition is complete")

    def scoring_query(self, queries: Queries) -> Tensor:
        """What the summary `scored` is multiplied with, [R, Q, E], in the summary's dtype."""
        return queries.query_RQD

    def score(self, summaries: Summaries, queries: Queries) -> Tensor:
        """Relevance of partitions to queries, float32 [R, Q, P], from summaries [R, P, ...]."""
        if self.scored is None:
            raise NotImplementedError(
                f"{type(self).__name__} neither names its `scored` summary nor defines `score`"
            )
        return dot_scores(summaries[self.scored], self.scoring_query(queries))

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

    def select(
        self, scores_RGP: Tensor, visible: Visible, summaries: Summaries = NOTHING
    ) -> Selection:
        """The best partitions of each row within its budget, sinks and recents first.

        summaries: [R, P, ...] of those that `weighed` names.
        """
        size = self.partition_size
        masks = visible.masks(scores_RGP.shape[-1], size, self.sinks, self.recents)
        # What waits is read in any case, and its score is no number that others may be weighed by.
        ignored_RP = masks.absent_RP if self.waits is None else masks.absent_RP | masks.forced_RP
        scores_RGP = scores_RGP.masked_fill(ignored_RP.unsqueeze(1), -torch.inf)
        scores_RP = self.reduced(scores_RGP, visible)
        best = self.best(scores_RP.masked_fill(masks.forced_RP, torch.inf), visible)
        if not (self.shares and self.estimates):
            return best
        return replace(best, share_RG=share_of(scores_RGP, best))

    def reduced(self, scores_RGP: Tensor, visible: Visible) -> Tensor:
        """One score per row and partition; absent ones have -inf before and after."""
        scores_RP = reduce_group(scores_RGP, self.group_reduce)
        if not self.pool_heads:
            return scores_RP
        scores_BKMP = scores_RP.unflatten(0, (-1, visible.num_kv_heads, visible.num_queries))
        return scores_BKMP.mean(dim=1, keepdim=True).expand_as(scores_BKMP).flatten(0, 2)

    def best(self, scores_RP: Tensor, visible: Visible) -> Selection:
        """The partitions of largest score that the budget allows; never one of -inf."""
        columns = min(self.most_tokens(visible.longest) // self.partition_size, scores_RP.shape[1])
        best = scores_RP.topk(columns, dim=1)
        if self._fills(columns, visible):
            return Selection(best.indices.sort(dim=1).values, None)
        valid_RC = best.values > -torch.inf
        if (columns_R := self.columns(visible)) is not None:
            valid_RC &= torch.arange(columns, device=columns_R.device) < columns_R.unsqueeze(1)
        return ascending(best.indices, valid_RC, scores_RP.shape[1])

    def estimate(self, read: Read) -> Estimate:
        """What `estimates` adds for the rest of each row; merged by its weight."""
        raise NotImplementedError(f"{type(self).__name__} estimates nothing")

    def _fills(self, columns: int, visible: Visible) -> bool:
        """Whether the host knows that every row has a partition for every column."""
        same_budget = isinstance(self.budget_tokens, int) or visible.shortest == visible.longest
        enough = -(-visible.shortest // self.partition_size) >= columns
        return same_budget and enough and visible.alive_RP is None


def ascending(partitions_RC: Tensor, valid_RC: Tensor, num_partitions: int) -> Selection:
    """A selection in order; columns that do not count go last, and name no partition."""
    partitions_RC, order_RC = partitions_RC.masked_fill(~valid_RC, num_partitions).sort(dim=1)
    return Selection(partitions_RC, valid_RC.gather(1, order_RC))
