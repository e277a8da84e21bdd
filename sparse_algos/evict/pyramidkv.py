"""PyramidKV (Cai et al., 2024, arXiv:2406.02069): SnapKV with more for low layers, less for high.

Budgets fall by equal steps over the layers that the evictor serves; their mean is the budget.
"""

from dataclasses import dataclass

from sparse_algos.checks import check_count
from sparse_algos.observed import ObservedEvictor


@dataclass(frozen=True, kw_only=True)
class PyramidKV(ObservedEvictor):
    """Keeps the best tokens of each kv head, fewer of them the higher the layer.

    beta: the last layer chooses this part, 1 / beta, of the mean that a layer chooses.
    """

    beta: int

    def __post_init__(self) -> None:
        """See Evictor."""
        check_count("algo.evict.beta", self.beta, least=1)
        super().__post_init__()

    def most_tokens(self, context: int, layer: int = 0, num_layers: int = 1) -> int:
        """See Evictor."""
        mean = super().most_tokens(context) - self.window_tokens
        past = max(0, context - self.window_tokens)
        if num_layers == 1 or past <= mean:
            return mean + self.window_tokens
        least = mean // self.beta
        most = 2 * mean - least
        if most >= past:
            most, least = past, 2 * mean - past
        step = (most - least) // (num_layers - 1)
        return max(self.sinks, most - layer * step) + self.window_tokens
