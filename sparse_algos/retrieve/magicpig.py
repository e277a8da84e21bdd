"""MagicPIG (Chen et al., ICLR 2025, arXiv:2410.16179): tokens drawn by locality-sensitive hashing.

Keys, less their mean, are hashed by the signs of random projections into many tables; a query head
draws the tokens that share its bucket in at least two of them, and each drawn token's logit is
corrected by the probability that this happens. First and last tokens are read as they are. The
budget cuts off the tokens of fewest collisions, which the paper leaves to its parameters.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.hashed import Chance, HashedRetriever
from sparse_algos.index_data import Keys, Queries, Summaries, TensorSpec

# Projections held at one time, so that a long context needs little memory.
BLOCK_ELEMENTS = 1 << 24
LEAST_WEIGHT = 1e-4


@dataclass(frozen=True, kw_only=True)
class MagicPig(HashedRetriever):
    """Draws by SimHash: `tables` tables of `bits` signs each, L and K of the paper.

    seed: of the projections.
    """

    tables: int
    bits: int
    seed: int

    # What the formula of the paper is about.
    least_collisions: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.tables", self.tables, least=2)
        check_count("algo.retrieve.bits", self.bits, least=1)
        if self.bits > 15:
            raise ValueError(
                f"algo.retrieve.bits={self.bits} exceeds the 15 bits of a bucket's number; lower it"
            )
        super().__post_init__()

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The bucket in each table, and the norm of the centred key."""
        width = torch.uint8 if self.bits <= 8 else torch.int16
        return {
            "code": TensorSpec((self.tables,), width, by_entry=True),
            "norm": TensorSpec((1,), torch.float32),
        }

    def build(self, keys: Keys) -> Summaries:
        """See Retriever; about the mean of these keys, as if they were the context."""
        key_RTD = keys.key_RPSD[:, :, 0].float()
        return self.hashed(key_RTD, key_RTD.mean(dim=1))

    def hashed(self, key_RTD: Tensor, center_RD: Tensor) -> Summaries:
        """See HashedRetriever."""
        key_RTD = key_RTD.float() - center_RD.unsqueeze(1)
        step = max(1, BLOCK_ELEMENTS // (len(key_RTD) * self.tables * self.bits))
        codes = [self.codes(part_RTD) for part_RTD in key_RTD.split(step, dim=1)]
        return {"code": torch.cat(codes, dim=1), "norm": key_RTD.norm(dim=2, keepdim=True)}

    def codes(self, vector_RTD: Tensor) -> Tensor:
        """See HashedRetriever: the bucket in each table."""
        dim = vector_RTD.shape[2]
        directions_DE = _directions(self.seed, dim, self.tables * self.bits).to(vector_RTD.device)
        sign_RTLK = (vector_RTD @ directions_DE > 0).unflatten(2, (self.tables, self.bits))
        power_K = 2.0 ** torch.arange(self.bits, device=vector_RTD.device)
        return (sign_RTLK.float() @ power_K).to(self.summary_spec(dim, torch.float32)["code"].dtype)

    def score(self, summaries: Summaries, queries: Queries) -> Tensor:
        """Tables in which query and key share a bucket."""
        key_RPL, query_RQL = summaries["code"], self.codes(queries.query_RQD.float())
        count_RQP = torch.zeros(*query_RQL.shape[:2], key_RPL.shape[1], device=key_RPL.device)
        for key_RP, query_RQ in zip(key_RPL.unbind(2), query_RQL.unbind(2), strict=True):
            count_RQP += key_RP.unsqueeze(1) == query_RQ.unsqueeze(2)
        return count_RQP

    @property
    def chance(self) -> Chance:
        """See HashedRetriever."""
        return Chance(self.tables, self.bits, LEAST_WEIGHT)

    def sampling_bias(self, cosine: Tensor) -> Tensor:
        """See HashedRetriever: -ln of how often the paper's tables collide often enough."""
        same = (1 - cosine.clamp(-1, 1).acos() / math.pi) ** self.bits
        rest, tables = 1 - same, self.tables
        weight = 1 - rest ** (tables - 1) * (tables * same + rest)
        return -(weight + LEAST_WEIGHT).log()


@lru_cache
def _directions(seed: int, dim: int, count: int) -> Tensor:
    """Directions of the projections, float32 [dim, count]; the same on every machine."""
    return torch.randn(dim, count, generator=torch.Generator().manual_seed(seed))
