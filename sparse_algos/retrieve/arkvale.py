"""ArkVale (Chen et al., NeurIPS 2024): the mean deviation around the middle of a page of keys.

The digest is what the paper calls cuboid-mean. What the paper does about memory (back up, evict,
recall) is the cache manager's here; pages that are not complete are always read.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.index_data import Keys, Queries, Summaries, TensorSpec
from sparse_algos.units import BlockRetriever


@dataclass(frozen=True, kw_only=True)
class ArkVale(BlockRetriever):
    """Ranks pages by q.c + |q|.r: c the middle of the keys' bounds, r their mean distance to it.

    block_tokens: tokens per page of the paper.
    """

    scored: ClassVar[str | None] = "digest"

    @property
    def waits(self) -> int | None:
        """A middle that moves would change the distance of every key before."""
        return 0

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The middle, then the mean distance to it, element by element."""
        return {"digest": TensorSpec((2 * head_dim,), dtype)}

    def build(self, keys: Keys) -> Summaries:
        """See Retriever."""
        key_RPSD, dead_RPS1 = keys.key_RPSD.float(), ~keys.live_RPS.unsqueeze(-1)
        low_RPD = key_RPSD.masked_fill(dead_RPS1, torch.inf).amin(dim=2)
        high_RPD = key_RPSD.masked_fill(dead_RPS1, -torch.inf).amax(dim=2)
        middle_RPD = (low_RPD + high_RPD) / 2
        away_RPSD = (key_RPSD - middle_RPD.unsqueeze(2)).abs_().masked_fill_(dead_RPS1, 0)
        count_RP1 = keys.live_RPS.sum(dim=2, keepdim=True).clamp(min=1)
        radius_RPD = away_RPSD.sum(dim=2) / count_RP1
        digest_RPE = torch.cat((middle_RPD, radius_RPD), dim=-1)
        return {"digest": digest_RPE.to(keys.key_RPSD.dtype)}

    def scoring_query(self, queries: Queries) -> Tensor:
        """Makes the sum over dimensions of max(q_i (c + r)_i, q_i (c - r)_i)."""
        return torch.cat((queries.query_RQD, queries.query_RQD.abs()), dim=-1)
