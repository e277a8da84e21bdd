"""MInference (arXiv:2407.02490): the vertical and slash lines that the last 64 rows attend.

All heads use the vertical-slash pattern, which the paper's search picks for most of them; there is
no offline search. A slash is computed as the blocks of the grid that it crosses, the paper's kernel
lets these begin at any token.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.lines import lines_of
from sparse_algos.pattern import BlockPlan, Chunk, PrefillPattern


@dataclass(frozen=True, kw_only=True)
class MInference(PrefillPattern):
    """Each head computes its `vertical` strongest columns and its `slash` strongest diagonals.

    last_rows: rows that are looked at; sinks: first columns that are always among the vertical
    ones; recents: first diagonals, the main one included, that are always among the slashes.
    """

    vertical: int
    slash: int
    last_rows: int
    sinks: int
    recents: int

    def __post_init__(self) -> None:
        """See PrefillPattern."""
        super().__post_init__()
        check_count("algo.prefill.last_rows", self.last_rows, least=1)
        for line, forced in (("vertical", "sinks"), ("slash", "recents")):
            count, least = getattr(self, line), getattr(self, forced)
            check_count(f"algo.prefill.{line}", count, least=1)
            check_count(f"algo.prefill.{forced}", least, least=0)
            if count < least:
                raise ValueError(
                    f"algo.prefill.{line}={count} is below algo.prefill.{forced}={least}, which "
                    f"are among them; raise it, or lower algo.prefill.{forced}"
                )

    def keeping_all(self) -> Self:
        """See PrefillPattern."""
        return replace(self, vertical=2**40, slash=2**40)

    def choose(self, chunk: Chunk) -> BlockPlan:
        """The strongest lines of each head, as seen from the chunk's last rows."""
        lines = lines_of(chunk, self.last_rows)
        columns_HC = _strongest(lines.columns_HT, self.vertical, self.sinks)
        distances_HC = _strongest(lines.distances_HT, self.slash, self.recents)
        return BlockPlan(self.block_tokens, self._crossed(distances_HC, chunk), columns_HC)

    def _crossed(self, distances_HC: Tensor, chunk: Chunk) -> Tensor:
        """Blocks that hold a pair of some diagonal, bool [H, I, P]."""
        size, num_blocks = self.block_tokens, -(-chunk.num_tokens // self.block_tokens)
        near_HC = distances_HC // size
        far_HC = (distances_HC + size - 1) // size
        apart_HO = torch.zeros(
            len(near_HC), num_blocks + 1, dtype=torch.bool, device=near_HC.device
        )
        apart_HO.scatter_(1, near_HC, True).scatter_(1, far_HC, True)
        block_P = torch.arange(num_blocks, device=near_HC.device)
        gap_IP = block_P[chunk.past // size :].unsqueeze(1) - block_P
        return apart_HO[:, gap_IP.clamp(min=0)] & (gap_IP >= 0)


def _strongest(mass_HT: Tensor, count: int, forced: int) -> Tensor:
    """The `count` entries of most mass, the first `forced` before all others: int64 [H, C]."""
    mass_HT, count = mass_HT.clone(), min(count, mass_HT.shape[1])
    mass_HT[:, :forced] = torch.inf
    least_H1 = mass_HT.topk(count).values[:, -1:]
    above_HT, equal_HT = mass_HT > least_H1, mass_HT == least_H1
    # Of equal ones the left: topk takes any of them, a stable sort of all takes far longer.
    left_HT = equal_HT.cumsum(1) <= count - above_HT.sum(1, keepdim=True)
    taken_HT = above_HT | (equal_HT & left_HT)
    return taken_HT.byte().topk(count).indices.sort(1).values
