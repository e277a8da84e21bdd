"""StreamingLLM (Xiao et al., ICLR 2024, arXiv:2309.17453): attention sinks and a sliding window.

Keys keep the rotation of their own position; the paper assigns positions inside the cache.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.evictor import Evictor


@dataclass(frozen=True, kw_only=True)
class Streaming(Evictor):
    """Keeps the first `sinks` tokens and the most recent ones up to the budget."""

    sinks: int

    def __post_init__(self) -> None:
        """Check that a window remains beside the sinks."""
        check_count("algo.evict.sinks", self.sinks, least=0)
        check_count("algo.evict.budget_tokens", self.budget_tokens, least=self.least_budget)

    @property
    def least_budget(self) -> int:
        """See Evictor."""
        return self.sinks + 2

    @property
    def most_rows(self) -> int:
        """Half of the window, so that a step's tokens never push out all that came before."""
        return max(1, (self.budget_tokens - self.sinks) // 2)

    def keep(self, num_tokens_R: Tensor, coming: int, num_slots: int) -> Tensor:
        """See Evictor."""
        slot_T = torch.arange(num_slots, device=num_tokens_R.device)
        window = self.budget_tokens - self.sinks - coming
        first_R1 = (num_tokens_R - window).unsqueeze(1)
        return (slot_T < self.sinks) | (slot_T >= first_R1)
