"""Ada-KV (Feng et al., 2024, arXiv:2407.11550): SnapKV with one budget for all heads of a layer.

The best tokens of a layer stay, whichever kv head they belong to, so that heads with dispersed
attention keep more. The safeguard is a floor for each head; the paper blends both budgets.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.evictor import Held
from sparse_algos.kept import best, ends, rank
from sparse_algos.observed import ObservedEvictor


@dataclass(frozen=True, kw_only=True)
class AdaKV(ObservedEvictor):
    """Keeps the best tokens of a layer, and of each kv head at least a part of its equal share.

    floor_share: that part.
    """

    floor_share: float

    pools_heads: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """See Evictor."""
        if isinstance(self.floor_share, bool) or not 0 <= self.floor_share <= 1:
            raise ValueError(
                f"algo.evict.floor_share={self.floor_share!r} is no share of a head's budget; give "
                "a number from 0 to 1, such as 0.2"
            )
        super().__post_init__()

    def keep(self, held: Held) -> Tensor:
        """See Evictor."""
        always_RT = ends(held, self.sinks, self.window_tokens)
        ranked_RT = rank(held, self.smoothed(held), always_RT)
        chosen_R = held.room_R - self.sinks - self.window_tokens
        floor_R = (chosen_R.double() * self.floor_share).long().clamp(min=0)
        safe_RT = best(ranked_RT, always_RT.sum(dim=1) + floor_R)
        ranked_RT = ranked_RT.masked_fill(safe_RT, torch.inf)
        room_B = held.room_R.unflatten(0, (-1, held.num_heads)).sum(dim=1)
        ranked_BN = ranked_RT.unflatten(0, (-1, held.num_heads)).flatten(1)
        return best(ranked_BN, room_B).view(ranked_RT.shape)
