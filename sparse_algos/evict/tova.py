"""TOVA (Oren et al., 2024, arXiv:2401.06104): the tokens that the last query attends to least go.

Attention is averaged over all heads of a layer, so that its kv heads keep the same tokens. A step
of several question tokens asks the last of them.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparse_algos.evictor import Sees
from sparse_algos.recent import RecentEvictor


@dataclass(frozen=True, kw_only=True)
class Tova(RecentEvictor):
    """Keeps what the last query attends to, and the last `recent_tokens`."""

    sees: ClassVar[Sees] = "attention"

    @property
    def window(self) -> int:
        """See Evictor."""
        return 1

    def received(self, old_RT: Tensor, mass_RGT: Tensor, num_heads: int) -> Tensor:
        """See Evictor."""
        mean_BT = mass_RGT.mean(dim=1).unflatten(0, (-1, num_heads)).mean(dim=1)
        return mean_BT.repeat_interleave(num_heads, dim=0)
