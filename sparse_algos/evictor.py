"""The role that decides which tokens stay at all; what it drops is freed for good."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sparse_algos.checks import check_amount, check_count

Sees = Literal["nothing", "keys", "attention"]


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the rows of one layer hold when some of it has to go; slots keep the order of tokens.

    live_RT: bool, slots that hold a token; scores_RT: float32, what the evictor remembers of each
    slot, None for one that sees nothing; room_R: int64, stored tokens that each row may keep;
    coming: tokens that are appended next; num_heads: kv heads of a sequence, innermost in R.
    """

    live_RT: Tensor
    scores_RT: Tensor | None
    room_R: Tensor
    coming: int
    num_heads: int


@dataclass(frozen=True, kw_only=True)
class Evictor(ABC):
    """Decides which tokens stay at all; what it drops is freed for good, per kv head.

    budget_tokens: tokens that a row may hold, those of the coming step included, or a share of the
    context if below 1; sinks: first tokens that always stay, inside the budget.

    sees: what `scores_RT` is made of; decodes: whether it goes on after the context, so that a row
    never exceeds the budget; otherwise what follows the context stays; pools_heads: whether the kv
    heads of a layer share one budget, so that a row may hold more.
    """

    budget_tokens: int | float
    sinks: int

    sees: ClassVar[Sees] = "nothing"
    decodes: ClassVar[bool] = True
    pools_heads: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the settings that all evictors share."""
        check_amount("algo.evict.budget_tokens", self.budget_tokens)
        check_count("algo.evict.sinks", self.sinks, least=0)
        if isinstance(self.budget_tokens, int) and self.budget_tokens < self.least_budget:
            raise ValueError(
                f"algo.evict.budget_tokens={self.budget_tokens} cannot hold what always stays, "
                f"{self._takes}, and a step beside it: {self.least_budget} tokens; raise it, or "
                "lower these"
            )

    @property
    def least_budget(self) -> int:
        """Tokens that always stay, one that is chosen, and one that comes."""
        return self.sinks + self.recents + 2

    @property
    def recents(self) -> int:
        """Last tokens that always stay, inside the budget."""
        return 0

    @property
    def window(self) -> int | None:
        """Queries whose attention counts, the last of a step; None for all. See `received`."""
        return None

    @property
    def state_bytes(self) -> int:
        """Bytes kept per token and kv head, to decide by."""
        return 0 if self.sees == "nothing" else torch.float32.itemsize

    def most_tokens(self, context: int, layer: int = 0, num_layers: int = 1) -> int:
        """Tokens that a row of a sequence of `context` tokens may hold.

        layer: which of the `num_layers` that the evictor serves; where heads share one budget, this
        is the mean of a head.
        """
        if isinstance(self.budget_tokens, int):
            return self.budget_tokens
        return max(self.least_budget, math.ceil(self.budget_tokens * context))

    def most_rows(self, context: int) -> int | None:
        """Tokens of a sequence of `context` tokens that a step may append; None for no limit.

        Half of what is chosen, so that a step never pushes out all that came before.
        """
        if not self.decodes:
            return None
        return max(1, (self.most_tokens(context) - self.sinks) // 2)

    def score_keys(self, key_ND: Tensor) -> Tensor:
        """What is remembered of new tokens, float32 [N], by one that sees keys."""
        raise NotImplementedError(f"{type(self).__name__} does not see keys")

    def received(self, old_RT: Tensor, mass_RGT: Tensor, num_heads: int) -> Tensor:
        """What is remembered of each slot, float32 [R, T], by one that sees attention.

        mass_RGT: float32, attention that slots received from the queries in `window`, summed over
        these, by query head; old_RT: what was remembered, 0 for new tokens.
        """
        raise NotImplementedError(f"{type(self).__name__} does not see attention")

    @abstractmethod
    def keep(self, held: Held) -> Tensor:
        """Which slots stay, bool [R, T]: live ones, no more than there is room for."""

    @property
    def _takes(self) -> str:
        return f"algo.evict.sinks={self.sinks}"
