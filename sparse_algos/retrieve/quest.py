"""Quest (Tang et al., ICML 2024, arXiv:2406.10774): bounds of q.k per page of keys."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.index_data import Keys, NewKeys, Queries, Summaries, TensorSpec
from sparse_algos.units import BlockRetriever


@dataclass(frozen=True, kw_only=True)
class Quest(BlockRetriever):
    """Ranks pages by an upper bound of q.k over the page's keys (section 3.2 of the paper).

    block_tokens: tokens per page of the paper.
    """

    scored: ClassVar[str | None] = "bounds"

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """Element-wise minimum, then maximum, of the keys."""
        return {"bounds": TensorSpec((2 * head_dim,), dtype)}

    def build(self, keys: Keys) -> Summaries:
        """See Retriever."""
        dead_RPS1 = ~keys.live_RPS.unsqueeze(-1)
        low_RPD = keys.key_RPSD.masked_fill(dead_RPS1, torch.inf).amin(dim=2)
        high_RPD = keys.key_RPSD.masked_fill(dead_RPS1, -torch.inf).amax(dim=2)
        return {"bounds": torch.cat((low_RPD, high_RPD), dim=-1)}

    def append(self, old: Summaries, new: NewKeys) -> Summaries:
        """See Retriever."""
        low_RD, high_RD = old["bounds"].chunk(2, dim=-1)
        key_RD = new.key_RD
        grown = torch.cat((torch.minimum(low_RD, key_RD), torch.maximum(high_RD, key_RD)), dim=-1)
        fresh = torch.cat((key_RD, key_RD), dim=-1)
        return {"bounds": torch.where(new.count_R.unsqueeze(-1) == 0, fresh, grown)}

    def scoring_query(self, queries: Queries) -> Tensor:
        """Makes the sum over dimensions of max(q_i min_i, q_i max_i), which is at least any q.k."""
        query_RQD = queries.query_RQD
        return torch.cat((query_RQD.clamp(max=0), query_RQD.clamp(min=0)), dim=-1)
