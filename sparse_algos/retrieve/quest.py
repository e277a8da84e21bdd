"""Quest (Tang et al., ICML 2024, arXiv:2406.10774): bounds of q.k per page of keys."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.retriever import Retriever, Summaries, TensorSpec
from sparse_algos.selection import PartitionKind


@dataclass(frozen=True, kw_only=True)
class Quest(Retriever):
    """Ranks pages by an upper bound of q.k over the page's keys (section 3.2 of the paper).

    block_tokens: tokens per page of the paper.
    """

    block_tokens: int

    kind: ClassVar[PartitionKind] = "block"
    scored: ClassVar[str | None] = "bounds"

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.block_tokens", self.block_tokens, least=1)
        super().__post_init__()

    @property
    def partition_size(self) -> int:
        """See Retriever."""
        return self.block_tokens

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """Element-wise minimum, then maximum, of the keys."""
        return {"bounds": TensorSpec((2 * head_dim,), dtype)}

    def build(self, keys_NSD: Tensor, live_NS: Tensor) -> Summaries:
        """See Retriever."""
        dead_NS1 = ~live_NS.unsqueeze(-1)
        low_ND = keys_NSD.masked_fill(dead_NS1, torch.inf).amin(dim=1)
        high_ND = keys_NSD.masked_fill(dead_NS1, -torch.inf).amax(dim=1)
        return {"bounds": torch.cat((low_ND, high_ND), dim=-1)}

    def append(self, old: Summaries, count_N: Tensor, key_ND: Tensor) -> Summaries:
        """See Retriever."""
        low_ND, high_ND = old["bounds"].chunk(2, dim=-1)
        grown = torch.cat((torch.minimum(low_ND, key_ND), torch.maximum(high_ND, key_ND)), dim=-1)
        fresh = torch.cat((key_ND, key_ND), dim=-1)
        return {"bounds": torch.where(count_N.unsqueeze(-1) == 0, fresh, grown)}

    def scoring_query(self, query_RQD: Tensor) -> Tensor:
        """Makes the sum over dimensions of max(q_i min_i, q_i max_i), which is at least any q.k."""
        return torch.cat((query_RQD.clamp(max=0), query_RQD.clamp(min=0)), dim=-1)
