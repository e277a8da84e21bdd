"""A-shape (StreamingLLM, arXiv:2309.17453; MInference, arXiv:2407.02490): sinks and a local band.

Whole blocks that a row's sinks or window touch; the papers cut inside blocks.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch

from sparse_algos.checks import check_count
from sparse_algos.pattern import BlockPlan, Chunk, PrefillPattern


@dataclass(frozen=True, kw_only=True)
class AShape(PrefillPattern):
    """Every row sees the first `sinks` tokens and the `local_tokens` up to itself."""

    sinks: int
    local_tokens: int

    reads_keys: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """See PrefillPattern."""
        super().__post_init__()
        check_count("algo.prefill.sinks", self.sinks, least=0)
        check_count("algo.prefill.local_tokens", self.local_tokens, least=1)

    def keeping_all(self) -> Self:
        """See PrefillPattern."""
        return replace(self, local_tokens=2**40)

    def choose(self, chunk: Chunk) -> BlockPlan:
        """The same blocks for all heads; no query and no key is looked at."""
        size, device = self.block_tokens, chunk.query_KGMD.device
        start_P = torch.arange(0, chunk.num_tokens, size, device=device)
        row_I1 = start_P[chunk.past // size :].unsqueeze(1)
        local_IP = start_P + size > row_I1 - self.local_tokens + 1
        blocks_IP = local_IP | (start_P < self.sinks)
        return BlockPlan(size, blocks_IP.expand(chunk.num_heads, -1, -1))
