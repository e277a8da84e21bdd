"""Exact top-k attention: the bound that every retriever is compared with."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.index_data import Keys, NewKeys, Queries, Summaries, TensorSpec
from sparse_algos.retriever import Retriever
from sparse_algos.selection import PartitionKind


@dataclass(frozen=True, kw_only=True)
class OracleTopK(Retriever):
    """Reads the tokens of largest exact attention; its index is a full copy of the keys."""

    kind: ClassVar[PartitionKind] = "token"
    scored: ClassVar[str | None] = "key"
    bound: ClassVar[bool] = True

    @property
    def partition_size(self) -> int:
        """One token."""
        return 1

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The key itself."""
        return {"key": TensorSpec((head_dim,), dtype)}

    def build(self, keys: Keys) -> Summaries:
        """See Retriever; a partition has one slot, which is live."""
        return {"key": keys.key_RPSD[:, :, 0]}

    def append(self, old: Summaries, new: NewKeys) -> Summaries:
        """See Retriever."""
        return {"key": new.key_RD}

    def scoring_query(self, queries: Queries) -> Tensor:
        """Makes the attention logits, q.k / sqrt(D)."""
        return queries.query_RQD * queries.query_RQD.shape[-1] ** -0.5
