"""What a row may read, and what it reads: the language between algorithms and memory."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

PartitionKind = Literal["token", "block", "cluster"]


class Clusters(NamedTuple):
    """Clusters of each row: sizes_RP, tokens in each, 0 for one that is none; covered_R, tokens.

    Tokens from covered_R on are in no cluster yet. All int64.
    """

    sizes_RP: Tensor
    covered_R: Tensor


@dataclass(frozen=True)
class Visible:
    """What each row may look at.

    num_tokens_R: int64 [R], the row sees tokens 0 .. n-1 of its sequence; longest: their maximum,
    known on the host; alive_RP: bool [R, P] or None, partitions that still hold a token; shortest:
    the least that any row is known to see, on the host; clusters: where partitions are clusters;
    covered_R: int64 [R], where summaries are formed in bulk, the first token that has none yet.
    num_kv_heads and num_queries: rows are sequences x kv heads x queries, the last innermost.
    """

    num_tokens_R: Tensor
    longest: int
    alive_RP: Tensor | None = None
    shortest: int = 0
    clusters: Clusters | None = None
    num_kv_heads: int = 1
    num_queries: int = 1
    covered_R: Tensor | None = None
    _masks: dict[tuple[int, ...], "Masks"] = field(default_factory=dict, repr=False)

    def masks(self, num_partitions: int, size: int, sinks: int, recents: int) -> "Masks":
        """What rows of partitions of `size` tokens must and must not read; worked out once."""
        key = (num_partitions, size, sinks, recents)
        if key not in self._masks:
            start_P = torch.arange(num_partitions, device=self.num_tokens_R.device) * size
            tokens_R1 = self.num_tokens_R.unsqueeze(1)
            exists_RP = start_P < tokens_R1
            if self.alive_RP is not None:
                exists_RP &= self.alive_RP
            forced_RP = (start_P < sinks) | (start_P + size > tokens_R1 - recents)
            self._masks[key] = Masks(~exists_RP, forced_RP & exists_RP)
        return self._masks[key]


@dataclass(frozen=True)
class Masks:
    """Partitions that a row does not have, and those that it always reads: bool [R, P]."""

    absent_RP: Tensor
    forced_RP: Tensor


class Steady(NamedTuple):
    """Tokens read beside the partitions: 0 .. sinks_R - 1, and tail_R up to the row's last.

    Both int64 [R].
    """

    sinks_R: Tensor
    tail_R: Tensor


@dataclass(frozen=True)
class Selection:
    """Partitions that each row reads, ascending: int64 [R, C].

    valid_RC says which columns count, bool; None when all of them do; steady: where partitions do
    not cover every token; bias_RGC: float32, where partitions are tokens, added to the logits of a
    column for each query head; estimated_RC: partitions that are not read but estimated, -1 for
    none; share_RG: float32, the share of a query head's attention that, by its scores, is on what
    is read; drawn_RGC: bool, tokens that a query head has drawn at random, whose logits are
    corrected by how likely that was.
    """

    partitions_RC: Tensor
    valid_RC: Tensor | None
    steady: Steady | None = None
    bias_RGC: Tensor | None = None
    estimated_RC: Tensor | None = None
    share_RG: Tensor | None = None
    drawn_RGC: Tensor | None = None
