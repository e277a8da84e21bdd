"""InfLLM (Xiao et al., NeurIPS 2024, arXiv:2402.04617): blocks stand for their most attended keys.

As in the paper, all kv heads of a layer read the same blocks, and keys are weighed by products with
queries, where its code adds up softmaxes of each query head. Here keys keep their own positions,
where the paper moves distant ones to a common one; each query chooses by itself, where the paper
lets 512 choose together; and the context is prefilled densely unless it is part of the question.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.index_data import Keys, Summaries, TensorSpec
from sparse_algos.units import BlockRetriever


@dataclass(frozen=True, kw_only=True)
class InfLLM(BlockRetriever):
    """Ranks blocks by the products of the query with the block's representative keys.

    block_tokens: tokens per block; representatives: keys of a block that stand for it, those of
    the largest mean product with the `local_tokens` queries that follow each of them.
    """

    representatives: int
    local_tokens: int

    scored: ClassVar[str | None] = "representatives"
    needs_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """See Retriever."""
        super().__post_init__()
        check_count("algo.retrieve.representatives", self.representatives, least=1)
        check_count("algo.retrieve.local_tokens", self.local_tokens, least=1)
        if self.representatives > self.block_tokens:
            raise ValueError(
                f"algo.retrieve.representatives={self.representatives} are more than a block of "
                f"algo.retrieve.block_tokens={self.block_tokens} has; lower it"
            )
        if self.local_tokens > self.recents:
            raise ValueError(
                f"algo.retrieve.local_tokens={self.local_tokens} queries follow a key before its "
                f"block is ranked, so they must be read: raise algo.retrieve.recents from "
                f"{self.recents} to as many"
            )

    @property
    def waits(self) -> int | None:
        """The queries that a key is weighed by."""
        return self.local_tokens

    @property
    def needs_queries(self) -> bool:
        """See Retriever."""
        return True

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The sum of the representative keys: one product with it is the sum of theirs."""
        return {"representatives": TensorSpec((head_dim,), dtype)}

    def build(self, keys: Keys) -> Summaries:
        """See Retriever."""
        assert keys.query_RTD is not None
        key_RPSD = keys.key_RPSD.float()
        following_RTD = _mean_following(keys.query_RTD, self.local_tokens)
        following_RPSD = following_RTD[:, : key_RPSD.shape[1:3].numel()].view_as(key_RPSD)
        weight_RPS = (key_RPSD * following_RPSD).sum(dim=3)
        weight_RPS = weight_RPS.masked_fill(~keys.live_RPS, -torch.inf)
        best = weight_RPS.topk(self.representatives, dim=2)
        at_RPSD = best.indices.unsqueeze(3).expand(-1, -1, -1, key_RPSD.shape[3])
        gone_RPS1 = (best.values == -torch.inf).unsqueeze(3)
        sum_RPD = key_RPSD.gather(2, at_RPSD).masked_fill(gone_RPS1, 0).sum(dim=2)
        return {"representatives": sum_RPD.to(keys.key_RPSD.dtype)}


def _mean_following(query_RTD: Tensor, count: int) -> Tensor:
    """Mean of the `count` queries after each token, [R, T - count, D]."""
    # In float64: differences of long sums.
    upto_RTD = query_RTD.double().cumsum(dim=1)
    return ((upto_RTD[:, count:] - upto_RTD[:, :-count]) / count).float()
