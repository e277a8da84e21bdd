"""Key norms (Devoto et al., EMNLP 2024, arXiv:2406.11430): keys of a low L2 norm are attended to.

The paper skips the first two layers, which is `dense_layers` here; its norms are of rotated keys.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.evictor import Evictor, Held, Sees
from sparse_algos.kept import best, ends, rank


@dataclass(frozen=True, kw_only=True)
class Knorm(Evictor):
    """Keeps the tokens whose keys have the lowest norms, and the last `recent_tokens`."""

    recent_tokens: int

    sees: ClassVar[Sees] = "keys"

    def __post_init__(self) -> None:
        """See Evictor."""
        check_count("algo.evict.recent_tokens", self.recent_tokens, least=0)
        super().__post_init__()

    @property
    def recents(self) -> int:
        """See Evictor."""
        return self.recent_tokens

    def score_keys(self, key_ND: Tensor) -> Tensor:
        """See Evictor."""
        return -key_ND.float().norm(dim=1)

    def keep(self, held: Held) -> Tensor:
        """See Evictor."""
        assert held.scores_RT is not None
        always_RT = ends(held, self.sinks, self.recents)
        return best(rank(held, held.scores_RT, always_RT), held.room_R)

    @property
    def _takes(self) -> str:
        return f"algo.evict.sinks={self.sinks} and algo.evict.recent_tokens={self.recents}"
