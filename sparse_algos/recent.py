"""What evictors have in common that keep the best tokens, and a number of the last ones."""

from dataclasses import dataclass

from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.evictor import Evictor, Held
from sparse_algos.kept import best_between


@dataclass(frozen=True, kw_only=True)
class RecentEvictor(Evictor):
    """Keeps the tokens of the best scores, and the last `recent_tokens`."""

    recent_tokens: int

    def __post_init__(self) -> None:
        """See Evictor."""
        check_count("algo.evict.recent_tokens", self.recent_tokens, least=0)
        super().__post_init__()

    @property
    def recents(self) -> int:
        """See Evictor."""
        return self.recent_tokens

    def keep(self, held: Held) -> Tensor:
        """See Evictor."""
        assert held.scores_RT is not None
        return best_between(held, held.scores_RT, self.sinks, self.recents)

    @property
    def _takes(self) -> str:
        return f"algo.evict.sinks={self.sinks} and algo.evict.recent_tokens={self.recents}"
