"""What evictors have in common that ask the last queries of a context: SnapKV and its heirs."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d

from sparse_algos.checks import check_count
from sparse_algos.evictor import Evictor, Held, Sees
from sparse_algos.kept import best_between, ends


@dataclass(frozen=True, kw_only=True)
class ObservedEvictor(Evictor):
    """Keeps what the last queries of the context attended to; all that follows it stays.

    window_tokens: how many queries are asked; their own tokens always stay; kernel_tokens: scores
    are averaged over this many neighbours, an odd number, zeros beyond the ends.
    """

    window_tokens: int
    kernel_tokens: int

    sees: ClassVar[Sees] = "attention"
    decodes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """See Evictor."""
        check_count("algo.evict.window_tokens", self.window_tokens, least=1)
        check_count("algo.evict.kernel_tokens", self.kernel_tokens, least=1)
        if self.kernel_tokens % 2 == 0:
            raise ValueError(
                f"algo.evict.kernel_tokens={self.kernel_tokens} has no middle; use "
                f"{self.kernel_tokens - 1} or {self.kernel_tokens + 1}"
            )
        super().__post_init__()

    @property
    def recents(self) -> int:
        """See Evictor."""
        return self.window_tokens

    @property
    def window(self) -> int:
        """See Evictor."""
        return self.window_tokens

    def received(self, old_RT: Tensor, mass_RGT: Tensor, num_heads: int) -> Tensor:
        """See Evictor."""
        return mass_RGT.mean(dim=1)

    def keep(self, held: Held) -> Tensor:
        """See Evictor."""
        return best_between(held, self.smoothed(held), self.sinks, self.window_tokens)

    def smoothed(self, held: Held) -> Tensor:
        """Scores of what came before the window, averaged over neighbours, float32 [R, T]."""
        assert held.scores_RT is not None
        past_RT = held.live_RT & ~ends(held, 0, self.window_tokens)
        # The window's own scores count for nobody: it stays, whatever they are.
        scores_RT = torch.where(past_RT, held.scores_RT, 0.0)
        size = self.kernel_tokens
        return avg_pool1d(scores_RT.unsqueeze(1), size, stride=1, padding=size // 2).squeeze(1)

    @property
    def _takes(self) -> str:
        return f"algo.evict.sinks={self.sinks} and algo.evict.window_tokens={self.window_tokens}"
