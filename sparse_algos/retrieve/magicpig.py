"""MagicPIG (Chen et al., ICLR 2025, arXiv:2410.16179): tokens drawn by locality-sensitive hashing.

Keys, less their mean, are hashed by the signs of random projections into many tables; a query head
draws the tokens that share its bucket in at least two of them, and each drawn token's logit is
corrected by the probability that this happens. First and last tokens are read as they are. The
budget cuts off the tokens of fewest collisions, which the paper leaves to its parameters.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad, threshold

from sparse_algos.checks import check_count
from sparse_algos.retriever import (
    NOTHING,
    IndexKind,
    Keys,
    Queries,
    Retriever,
    Summaries,
    TensorSpec,
    ascending,
)
from sparse_algos.scores import GroupReduce
from sparse_algos.selection import PartitionKind, Selection, Visible

# Projections held at one time, so that a long context needs little memory.
BLOCK_ELEMENTS = 1 << 24
# Ranks of tokens: collisions first, then places, and beyond both what is always read.
MOST_TOKENS, ALWAYS = 1 << 32, 1 << 60
LEAST_WEIGHT = 1e-4
# What the formula of the paper is about.
LEAST_COLLISIONS = 2


@dataclass(frozen=True, kw_only=True)
class MagicPig(Retriever):
    """Draws by SimHash: `tables` tables of `bits` signs each, L and K of the paper.

    rebuild_every: once this many tokens stand between the hashed ones and the recents, they are
    hashed too; until then they are read like the recents. seed: of the projections.
    """

    tables: int
    bits: int
    rebuild_every: int
    seed: int
    group_reduce: GroupReduce = "max"

    kind: ClassVar[PartitionKind] = "token"
    index_kind: ClassVar[IndexKind] = "hashed"
    takes_best: ClassVar[bool] = False
    corrects: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.tables", self.tables, least=2)
        check_count("algo.retrieve.bits", self.bits, least=1)
        check_count("algo.retrieve.rebuild_every", self.rebuild_every, least=1)
        if self.bits > 15:
            raise ValueError(
                f"algo.retrieve.bits={self.bits} exceeds the 15 bits of a bucket's number; lower it"
            )
        super().__post_init__()

    @property
    def partition_size(self) -> int:
        """One token."""
        return 1

    @property
    def least_budget(self) -> int:
        """Sinks, recents, and the tokens that wait to be hashed."""
        return self.sinks + self.recents + self.rebuild_every

    def due(self, stored: int, covered: int) -> range | None:
        """Tokens to hash now, after the `covered` first ones; None if too few wait."""
        waiting = range(covered, stored - self.recents)
        return waiting if len(waiting) >= self.rebuild_every else None

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The bucket in each table, and the norm of the centred key."""
        width = torch.uint8 if self.bits <= 8 else torch.int16
        return {
            "code": TensorSpec((self.tables,), width),
            "norm": TensorSpec((1,), torch.float32),
        }

    def build(self, keys: Keys) -> Summaries:
        """See Retriever; about the mean of these keys, as if they were the context."""
        key_RTD = keys.key_RPSD[:, :, 0].float()
        return self.hashed(key_RTD, key_RTD.mean(dim=1))

    def hashed(self, key_RTD: Tensor, center_RD: Tensor) -> Summaries:
        """Summaries of tokens, about a center for each row."""
        key_RTD = key_RTD.float() - center_RD.unsqueeze(1)
        step = max(1, BLOCK_ELEMENTS // (len(key_RTD) * self.tables * self.bits))
        codes = [self.codes(part_RTD) for part_RTD in key_RTD.split(step, dim=1)]
        return {"code": torch.cat(codes, dim=1), "norm": key_RTD.norm(dim=2, keepdim=True)}

    def codes(self, vector_RTD: Tensor) -> Tensor:
        """The bucket of each vector in each table, [R, T, L]."""
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

    def select(
        self, scores_RGP: Tensor, visible: Visible, summaries: Summaries = NOTHING
    ) -> Selection:
        """What is always read, then the drawn tokens of most collisions over the group."""
        always_RP, allowed_R1 = self._always(visible), self._allowed(visible.num_tokens_R)
        counts_RGP = (
            scores_RGP if scores_RGP.shape[2] else scores_RGP.new_zeros((*scores_RGP.shape[:2], 1))
        )
        missing = visible.longest - counts_RGP.shape[2]
        worth_RP = pad(threshold(counts_RGP, LEAST_COLLISIONS - 1, 0).sum(dim=1), (0, missing))
        best = self._ranked(worth_RP.long(), always_RP, visible).topk(
            min(self.most_tokens(visible.longest), visible.longest), dim=1
        )
        nth_C = torch.arange(best.indices.shape[1], device=worth_RP.device)
        valid_RC = (best.values >= 0) & (nth_C < allowed_R1)
        chosen = ascending(best.indices, valid_RC, visible.longest)
        at_RC = chosen.partitions_RC.clamp(max=visible.longest - 1)
        always_R1C = always_RP.gather(1, at_RC).unsqueeze(1)
        # What is not hashed is among what is always read.
        at_R1C = at_RC.clamp(max=counts_RGP.shape[2] - 1).unsqueeze(1)
        taken_RGC = counts_RGP.gather(2, at_R1C.expand(-1, counts_RGP.shape[1], -1))
        drawn_RGC = (taken_RGC >= LEAST_COLLISIONS) & ~always_R1C
        reads_RGC = drawn_RGC | always_R1C
        bias_RGC = torch.zeros_like(drawn_RGC, dtype=torch.float32)
        bias_RGC = bias_RGC.masked_fill(~reads_RGC, -torch.inf)
        return replace(chosen, bias_RGC=bias_RGC, drawn_RGC=drawn_RGC)

    def _always(self, visible: Visible) -> Tensor:
        """Tokens that are read as they are, bool [R, P]: all of them where the budget holds all."""
        assert visible.covered_R is not None
        token_P = torch.arange(visible.longest, device=visible.num_tokens_R.device)
        masks = visible.masks(visible.longest, 1, self.sinks, self.recents)
        fits_R1 = visible.num_tokens_R.unsqueeze(1) <= self._allowed(visible.num_tokens_R)
        newer_RP = token_P >= visible.covered_R.unsqueeze(1)
        return (masks.forced_RP | newer_RP | fits_R1) & ~masks.absent_RP

    def _ranked(self, worth_RP: Tensor, always_RP: Tensor, visible: Visible) -> Tensor:
        """What to read first, int64, no two alike; below 0 what is not to be read.

        Sinks, then the newest of what is always read, then what is drawn, equal ones from the first
        token on.
        """
        token_P = torch.arange(visible.longest, device=worth_RP.device)
        masks = visible.masks(visible.longest, 1, self.sinks, self.recents)
        rank_RP = ((worth_RP + 1) * MOST_TOKENS - token_P).masked_fill(worth_RP == 0, -1)
        rank_RP = rank_RP.masked_fill(masks.absent_RP, -1)
        rank_RP = torch.where(always_RP, token_P + ALWAYS, rank_RP)
        return torch.where(always_RP & (token_P < self.sinks), 2 * ALWAYS - token_P, rank_RP)

    def sampling_bias(self, cosine: Tensor) -> Tensor:
        """What a logit takes that was drawn at this cosine of query and key: -ln of how often."""
        same = (1 - cosine.clamp(-1, 1).acos() / math.pi) ** self.bits
        rest, tables = 1 - same, self.tables
        weight = 1 - rest ** (tables - 1) * (tables * same + rest)
        return -(weight + LEAST_WEIGHT).log()

    def _allowed(self, num_tokens_R: Tensor) -> Tensor:
        """Tokens that each row may read, int64 [R, 1]."""
        if isinstance(self.budget_tokens, int):
            return torch.full_like(num_tokens_R, self.budget_tokens).unsqueeze(1)
        # In float64, as most_tokens counts.
        share_R = (num_tokens_R.double() * self.budget_tokens).ceil().long()
        return share_R.clamp(min=self.least_budget).unsqueeze(1)


@lru_cache
def _directions(seed: int, dim: int, count: int) -> Tensor:
    """Directions of the projections, float32 [dim, count]; the same on every machine."""
    return torch.randn(dim, count, generator=torch.Generator().manual_seed(seed))
