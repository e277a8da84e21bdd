"""What a retriever reads at a time: single tokens, copies of their keys, or blocks of one size."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.index_data import Keys, NewKeys, Queries, Summaries, TensorSpec
from sparse_algos.retriever import Retriever
from sparse_algos.selection import PartitionKind


@dataclass(frozen=True, kw_only=True)
class TokenRetriever(Retriever):
    """A partition is a token."""

    kind: ClassVar[PartitionKind] = "token"

    @property
    def partition_size(self) -> int:
        """One token."""
        return 1


@dataclass(frozen=True, kw_only=True)
class KeyRetriever(TokenRetriever):
    """Scores tokens by a copy of their keys."""

    scored: ClassVar[str | None] = "key"

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


@dataclass(frozen=True, kw_only=True)
class BlockRetriever(Retriever):
    """A partition is a block of `block_tokens`, the page of most papers."""

    block_tokens: int

    kind: ClassVar[PartitionKind] = "block"

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.block_tokens", self.block_tokens, least=1)
        super().__post_init__()

    @property
    def partition_size(self) -> int:
        """See Retriever."""
        return self.block_tokens
