"""TOVA (Oren et al., 2024, arXiv:2401.06104): the tokens that the last query attends to least go.

Attention is averaged over all heads of a layer, so that its kv heads keep the same tokens. A step
of several question tokens asks the last of them.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.evictor import Evictor, Held, Sees
from sparse_algos.kept import best, ends, rank


@dataclass(frozen=True, kw_only=True)
class Tova(Evictor):
    """Keeps what the last query attends to, and the last `recent_tokens`."""

    recent_tokens: int

    sees: ClassVar[Sees] = "attention"

    def __post_init__(self) -> None:
        """See Evictor."""
        check_count("algo.evict.recent_tokens", self.recent_tokens, least=0)
        super().__post_init__()

    @property
    def recents(self) -> int:
        """See Evictor."""
        return self.recent_tokens

    @property
    def window(self) -> int:
        """See Evictor."""
        return 1

    def received(self, old_RT: Tensor, mass_RGT: Tensor, num_heads: int) -> Tensor:
        """See Evictor."""
        mean_BT = mass_RGT.mean(dim=1).unflatten(0, (-1, num_heads)).mean(dim=1)
        return mean_BT.repeat_interleave(num_heads, dim=0)

    def keep(self, held: Held) -> Tensor:
        """See Evictor."""
        assert held.scores_RT is not None
        always_RT = ends(held, self.sinks, self.recents)
        return best(rank(held, held.scores_RT, always_RT), held.room_R)

    @property
    def _takes(self) -> str:
        return f"algo.evict.sinks={self.sinks} and algo.evict.recent_tokens={self.recents}"
