"""Twilight (Lin et al., NeurIPS 2025, arXiv:2502.02770): top-p pruning of what another selects.

Any retriever of tokens or blocks selects with the budget, which is meant to be generous; keys of 4
bits estimate the attention weights of these candidates, and the fewest tokens that hold a share p
of them are read. A group of query heads reads what any of its heads keeps, as in the paper; sinks
and recents stay whatever their weights are.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.checks import check_fraction
from sparse_algos.index_data import Keys, NewKeys, Queries, Summaries, TensorSpec
from sparse_algos.model_shape import ModelShape
from sparse_algos.quantised import packed, products
from sparse_algos.retriever import IndexKind, Retriever, ascending
from sparse_algos.scores import GroupReduce
from sparse_algos.selection import Selection, Visible
from sparse_algos.units import TokenRetriever

# A budget that holds all that a base may have to read.
PLENTY = 1 << 40


@dataclass(frozen=True, kw_only=True)
class Twilight(TokenRetriever):
    """Prunes the selection of `base`, which has this budget, to a share of its estimated weight.

    top_p: the share, p of the paper. The sinks and recents of the base are at least these, and it
    joins a group's scores in its own way.
    """

    base: Retriever
    top_p: float
    group_reduce: GroupReduce = "max"

    index_kind: ClassVar[IndexKind] = "pruned"

    def __post_init__(self) -> None:
        """See Retriever; the base checks its own settings, with this budget."""
        check_fraction("algo.retrieve.top_p", self.top_p)
        if not isinstance(self.base, Retriever):
            raise ValueError(
                f"algo.retrieve.base={self.base!r} is no retriever; give one, such as "
                "algo/retrieve@algo.retrieve.base=quest"
            )
        if self.base.index_kind != "summaries" or self.base.estimates:
            raise ValueError(
                f"algo.retrieve.base={type(self.base).__name__}: only tokens or blocks that are "
                "read as they are can be pruned; use algo/retrieve@algo.retrieve.base=quest"
            )
        if self.pool_heads:
            raise ValueError("algo.retrieve.pool_heads=True: kv heads are pruned apart; use False")
        super().__post_init__()
        assert self.selector.partition_size > 0

    @cached_property
    def selector(self) -> Retriever:
        """The base with the budget that is pruned."""
        return self._base_with(self.budget_tokens)

    @property
    def least_budget(self) -> int:
        """See Retriever: what the base needs."""
        return self._base_with(PLENTY).least_budget

    def kept_bytes(self, head_dim: int, num_kv_heads: int, dtype: torch.dtype) -> float:
        """See Retriever; the base keeps its own."""
        own = super().kept_bytes(head_dim, num_kv_heads, dtype)
        return own + self.selector.kept_bytes(head_dim, num_kv_heads, dtype)

    @property
    def prunes(self) -> bool:
        """See Retriever."""
        return self.top_p < 1

    def fitted(self, model: ModelShape) -> "Twilight":
        """See Retriever; the base is fitted too."""
        base = self.base.fitted(model)
        if not all(map(base.leads, range(model.num_layers))):
            raise ValueError(
                f"algo.retrieve.base={type(base).__name__} does not select on every layer, which "
                "pruning needs; use algo/retrieve@algo.retrieve.base=quest"
            )
        if model.head_dim % 2:
            raise ValueError(
                f"algo=twilight packs two channels of a key in a byte, model {model.name} has "
                f"{model.head_dim} of them; use algo=quest"
            )
        return replace(self, base=base)

    def most_tokens(self, context: int) -> int:
        """See Retriever: no more than the base selects."""
        return self.selector.most_tokens(context)

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """Channels of 4 bits, two to a byte, and the width of a level and the lowest one."""
        return {
            "code": TensorSpec((head_dim // 2,), torch.uint8),
            "range": TensorSpec((2,), torch.float16),
        }

    def build(self, keys: Keys) -> Summaries:
        """See Retriever; a partition has one slot, which is live."""
        return packed(keys.key_RPSD[:, :, 0])

    def append(self, old: Summaries, new: NewKeys) -> Summaries:
        """See Retriever."""
        return packed(new.key_RD)

    def score(self, summaries: Summaries, queries: Queries) -> Tensor:
        """The estimated logits, q.k / sqrt(D)."""
        return products(summaries, queries.query_RQD) * queries.query_RQD.shape[2] ** -0.5

    def candidates(self, chosen: Selection, visible: Visible) -> Selection:
        """The tokens of what the base has chosen, in its order."""
        size = self.selector.partition_size
        num_tokens_R1 = visible.num_tokens_R.unsqueeze(1)
        slot_S = torch.arange(size, device=num_tokens_R1.device)
        token_RC = (chosen.partitions_RC.unsqueeze(2) * size + slot_S).flatten(1)
        valid_RC = token_RC < num_tokens_R1
        if chosen.valid_RC is not None:
            valid_RC &= chosen.valid_RC.repeat_interleave(size, dim=1)
        if visible.alive_RP is not None:
            valid_RC &= visible.alive_RP.gather(1, token_RC.masked_fill(~valid_RC, 0))
        return Selection(token_RC, valid_RC)

    def prune(self, logits_RGC: Tensor, candidates: Selection) -> Tensor:
        """Candidates that hold the share for any of the query heads, bool [R, C]."""
        assert candidates.valid_RC is not None
        logits_RGC = logits_RGC.masked_fill(~candidates.valid_RC.unsqueeze(1), -torch.inf)
        weight_RGC = torch.nan_to_num(logits_RGC.softmax(dim=2))
        return nucleus(weight_RGC, self.top_p).any(dim=1)

    def joined(self, kept_RC: Tensor, candidates: Selection, visible: Visible) -> Selection:
        """What was kept, sinks and recents, in order."""
        token_RC, valid_RC = candidates.partitions_RC, candidates.valid_RC
        assert valid_RC is not None
        newest_R1 = visible.num_tokens_R.unsqueeze(1) - self.recents
        kept_RC = kept_RC | (token_RC < self.sinks) | (token_RC >= newest_R1)
        return ascending(token_RC, kept_RC & valid_RC, visible.longest)

    def _base_with(self, budget_tokens: int | float) -> Retriever:
        return replace(
            self.base,
            budget_tokens=budget_tokens,
            sinks=max(self.sinks, self.base.sinks),
            recents=max(self.recents, self.base.recents),
        )


def nucleus(weight_RGC: Tensor, share: float) -> Tensor:
    """The fewest of the largest weights whose sum is at least the share, bool; all for 1."""
    if share >= 1:
        return torch.ones_like(weight_RGC, dtype=torch.bool)
    least_RG1 = _threshold(weight_RGC, share)
    above_RGC, level_RGC = weight_RGC > least_RG1, weight_RGC == least_RG1
    missing_RG1 = share - (weight_RGC * above_RGC).sum(dim=2, keepdim=True)
    nth_RGC = level_RGC.cumsum(dim=2, dtype=torch.int32)
    # Of those at the threshold, the first that make up what is missing.
    return above_RGC | (level_RGC & ((nth_RGC - 1) * least_RG1 < missing_RG1))


def _threshold(weight_RGC: Tensor, share: float) -> Tensor:
    """The largest weight such that all that are no smaller hold the share, float32 [R, G, 1].

    By bisection of the floats, whose bits have their order; sorting takes many times longer.
    """
    bits_RGC = weight_RGC.contiguous().view(torch.int32)
    low_RG1 = torch.zeros_like(bits_RGC[..., :1])
    high_RG1 = bits_RGC.amax(dim=2, keepdim=True) + 1
    for _ in range(31):
        middle_RG1 = low_RG1 + (high_RG1 - low_RG1) // 2
        held_RG1 = (weight_RGC * (bits_RGC >= middle_RG1)).sum(dim=2, keepdim=True)
        enough_RG1 = held_RG1 >= share
        low_RG1 = torch.where(enough_RG1, middle_RG1, low_RG1)
        high_RG1 = torch.where(enough_RG1, high_RG1, middle_RG1)
    return low_RG1.view(torch.float32)
