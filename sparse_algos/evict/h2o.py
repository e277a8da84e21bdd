"""H2O (Zhang et al., NeurIPS 2023, arXiv:2306.14048): heavy hitters by accumulated attention.

Attention is that of a kv head, the mean over its query heads, from every query so far; a part of
the budget is for the most recent tokens.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from sparse_algos.evictor import Evictor, Held, Sees
from sparse_algos.kept import best, ends, rank


@dataclass(frozen=True, kw_only=True)
class H2O(Evictor):
    """Keeps the tokens that received most attention, beside the most recent ones.

    recent_share: part of the budget that is for the most recent tokens, the coming ones included.
    """

    recent_share: float

    sees: ClassVar[Sees] = "attention"

    def __post_init__(self) -> None:
        """See Evictor."""
        if isinstance(self.recent_share, bool) or not 0 <= self.recent_share < 1:
            raise ValueError(
                f"algo.evict.recent_share={self.recent_share!r} is no share of the budget; give a "
                "number from 0 to below 1, such as 0.5"
            )
        super().__post_init__()

    def received(self, old_RT: Tensor, mass_RGT: Tensor, num_heads: int) -> Tensor:
        """See Evictor."""
        return old_RT + mass_RGT.mean(dim=1)

    def keep(self, held: Held) -> Tensor:
        """See Evictor."""
        assert held.scores_RT is not None
        # In float64, so that a half of 256 is 128.
        recents_R1 = ((held.room_R + held.coming).double() * self.recent_share).long().unsqueeze(1)
        nth_RT = held.live_RT.cumsum(dim=1)
        after_RT = nth_RT[:, -1:] - nth_RT
        recent_RT = held.live_RT & (after_RT < recents_R1 - held.coming)
        always_RT = ends(held, self.sinks, 0) | recent_RT
        return best(rank(held, held.scores_RT, always_RT), held.room_R)
