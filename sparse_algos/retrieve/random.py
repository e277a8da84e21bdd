"""Random partitions, without a paper: the lower bound that every retriever has to beat.

The choice is a hash of the seed and of where it is made, so it is the same in any batch.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.index_data import Keys, NewKeys, Queries, Summaries, TensorSpec
from sparse_algos.model_shape import ModelShape
from sparse_algos.units import BlockRetriever

WORD = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class Random(BlockRetriever):
    """Reads blocks drawn evenly, anew for each layer, kv head and query; keeps no summaries.

    block_tokens: tokens per block; seed: of all draws.
    """

    seed: int
    _num_kv_heads: int = field(default=1, repr=False)

    bound: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.seed", self.seed, least=0)
        super().__post_init__()

    def fitted(self, model: ModelShape) -> Self:
        """See Retriever: rows are told apart by their kv head."""
        return replace(self, _num_kv_heads=model.num_kv_heads)

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """Nothing."""
        return {}

    def build(self, keys: Keys) -> Summaries:
        """See Retriever."""
        return {}

    def append(self, old: Summaries, new: NewKeys) -> Summaries:
        """See Retriever."""
        return {}

    def score(self, summaries: Summaries, queries: Queries) -> Tensor:
        """Draws of 24 bits, one for all query heads of a group."""
        num_rows, num_queries, _ = queries.query_RQD.shape
        device = queries.query_RQD.device
        head_R1 = (torch.arange(num_rows, device=device) % self._num_kv_heads).unsqueeze(1)
        where = _mixed(torch.tensor(self.seed, device=device)) + queries.layer
        place_RM = _mixed(_mixed(_mixed(where) + head_R1) ^ queries.position_RM)
        partition_P = torch.arange(queries.num_partitions, device=device)
        draw_RMP = _mixed(place_RM.unsqueeze(2) ^ _mixed(partition_P))
        group = num_queries // queries.position_RM.shape[1]
        return (draw_RMP >> 8).float().repeat_interleave(group, dim=1)


def _mixed(word: Tensor) -> Tensor:
    """Each bit of 32 made to depend on all others (a multiply-xorshift bijection), int64."""
    word = word & WORD
    for factor, shift in ((0x7FEB352D, 15), (0x846CA68B, 16)):
        word = word ^ (word >> shift)
        word = (word * factor) & WORD
    return word ^ (word >> 16)
