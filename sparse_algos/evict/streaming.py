"""StreamingLLM (Xiao et al., ICLR 2024, arXiv:2309.17453): attention sinks and a sliding window.

Keys keep the rotation of their own position; the paper assigns positions inside the cache.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_algos.evictor import Evictor, Held
from sparse_algos.kept import best_between


@dataclass(frozen=True, kw_only=True)
class Streaming(Evictor):
    """Keeps the first `sinks` tokens and the most recent ones up to the budget."""

    def keep(self, held: Held) -> Tensor:
        """See Evictor."""
        slot_T = torch.arange(held.live_RT.shape[1], device=held.live_RT.device)
        age_RT = slot_T.expand_as(held.live_RT)
        return best_between(held, age_RT, self.sinks, 0)
