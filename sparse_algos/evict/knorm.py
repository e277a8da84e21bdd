"""Key norms (Devoto et al., EMNLP 2024, arXiv:2406.11430): keys of a low L2 norm are attended to.

The paper skips the first two layers, which is `dense_layers` here; its norms are of rotated keys.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparse_algos.evictor import Sees
from sparse_algos.recent import RecentEvictor


@dataclass(frozen=True, kw_only=True)
class Knorm(RecentEvictor):
    """Keeps the tokens whose keys have the lowest norms, and the last `recent_tokens`."""

    sees: ClassVar[Sees] = "keys"

    def score_keys(self, key_ND: Tensor) -> Tensor:
        """See Evictor."""
        return -key_ND.float().norm(dim=1)
