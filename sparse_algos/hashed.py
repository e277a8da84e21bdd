"""Retrievers that hash keys, and read the tokens whose codes equal many of a query's."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, threshold

from sparse_algos.checks import check_count
from sparse_algos.index_data import NOTHING, Summaries
from sparse_algos.retriever import IndexKind, ascending
from sparse_algos.scores import GroupReduce
from sparse_algos.selection import Selection, Visible
from sparse_algos.units import TokenRetriever

# Ranks of tokens: collisions first, then places, and beyond both what is always read.
MOST_TOKENS, ALWAYS = 1 << 32, 1 << 60


class Chance(NamedTuple):
    """That `tables` tables of `bits` signs each make a token drawn; `least` is added to it."""

    tables: int
    bits: int
    least: float


@dataclass(frozen=True, kw_only=True)
class HashedRetriever(TokenRetriever):
    """A query head draws the hashed tokens that have enough codes in common with it.

    Summaries are `code`, uint8 or int16 [L], and `norm`, float32 [1]; scores count equal codes, and
    `least_collisions` of them are enough. rebuild_every: once this many tokens stand between the
    hashed ones and the recents, they are hashed too; until then they are read like the recents.
    """

    rebuild_every: int
    group_reduce: GroupReduce = "max"

    index_kind: ClassVar[IndexKind] = "hashed"
    takes_best: ClassVar[bool] = False
    corrects: ClassVar[bool] = True
    least_collisions: ClassVar[int]

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.rebuild_every", self.rebuild_every, least=1)
        if self.pool_heads or self.group_reduce != "max":
            raise ValueError(
                f"algo.retrieve.pool_heads={self.pool_heads}, group_reduce={self.group_reduce!r}: "
                "each query head draws for itself; use false and max"
            )
        super().__post_init__()

    @property
    def least_budget(self) -> int:
        """Sinks, recents, and the tokens that wait to be hashed."""
        return self.sinks + self.recents + self.rebuild_every

    def due(self, stored: int, covered: int) -> range | None:
        """Tokens to hash now, after the `covered` first ones; None if too few wait."""
        waiting = range(covered, stored - self.recents)
        return waiting if len(waiting) >= self.rebuild_every else None

    @abstractmethod
    def hashed(self, key_RTD: Tensor, center_RD: Tensor) -> Summaries:
        """Summaries of tokens, about a center for each row."""

    @abstractmethod
    def codes(self, vector_RTD: Tensor) -> Tensor:
        """The codes of each vector, [R, T, L]."""

    @property
    @abstractmethod
    def chance(self) -> Chance:
        """What `sampling_bias` depends on."""

    @abstractmethod
    def sampling_bias(self, cosine: Tensor) -> Tensor:
        """What a logit takes that was drawn at this cosine of query and key, float32."""

    def allowed_R1(self, num_tokens_R: Tensor) -> Tensor:
        """Tokens that each row may read, int64 [R, 1]."""
        if isinstance(self.budget_tokens, int):
            return torch.full_like(num_tokens_R, self.budget_tokens).unsqueeze(1)
        # In float64, as most_tokens counts.
        share_R = (num_tokens_R.double() * self.budget_tokens).ceil().long()
        return share_R.clamp(min=self.least_budget).unsqueeze(1)

    def select(
        self, scores_RGP: Tensor, visible: Visible, summaries: Summaries = NOTHING
    ) -> Selection:
        """What is always read, then the drawn tokens of most collisions over the group."""
        always_RP, allowed_R1 = self._always(visible), self.allowed_R1(visible.num_tokens_R)
        counts_RGP = (
            scores_RGP if scores_RGP.shape[2] else scores_RGP.new_zeros((*scores_RGP.shape[:2], 1))
        )
        missing = visible.longest - counts_RGP.shape[2]
        worth_RP = pad(threshold(counts_RGP, self.least_collisions - 1, 0).sum(dim=1), (0, missing))
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
        drawn_RGC = (taken_RGC >= self.least_collisions) & ~always_R1C
        reads_RGC = drawn_RGC | always_R1C
        bias_RGC = torch.zeros_like(drawn_RGC, dtype=torch.float32)
        bias_RGC = bias_RGC.masked_fill(~reads_RGC, -torch.inf)
        return replace(chosen, bias_RGC=bias_RGC, drawn_RGC=drawn_RGC)

    def _always(self, visible: Visible) -> Tensor:
        """Tokens that are read as they are, bool [R, P]: all of them where the budget holds all."""
        assert visible.covered_R is not None
        token_P = torch.arange(visible.longest, device=visible.num_tokens_R.device)
        masks = visible.masks(visible.longest, 1, self.sinks, self.recents)
        fits_R1 = visible.num_tokens_R.unsqueeze(1) <= self.allowed_R1(visible.num_tokens_R)
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
