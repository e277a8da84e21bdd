"""Exact top-p attention, without a paper: the fewest tokens whose attention mass reaches p."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.index_data import NOTHING, Summaries
from sparse_algos.retriever import ascending
from sparse_algos.selection import Selection, Visible
from sparse_algos.units import KeyRetriever


@dataclass(frozen=True, kw_only=True)
class OracleTopP(KeyRetriever):
    """Reads tokens of largest exact attention until they hold `mass`, or the budget is full.

    mass: of the attention of each row, the mean over its query heads, between 0 and 1; sinks and
    recents count. The index is a full copy of the keys.
    """

    mass: float

    takes_best: ClassVar[bool] = False
    bound: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """See Retriever."""
        if not isinstance(self.mass, int | float) or not 0 < self.mass <= 1:
            raise ValueError(
                f"algo.retrieve.mass={self.mass!r} is no share of the attention; give a number "
                "above 0 and up to 1 (0.95)"
            )
        if self.group_reduce != "mass":
            raise ValueError(
                f"algo.retrieve.group_reduce={self.group_reduce!r}: top-p adds up attention mass; "
                "use mass"
            )
        super().__post_init__()

    def select(
        self, scores_RGP: Tensor, visible: Visible, summaries: Summaries = NOTHING
    ) -> Selection:
        """Sinks and recents, then the best tokens while what was taken holds less than `mass`."""
        num_tokens = scores_RGP.shape[2]
        masks = visible.masks(num_tokens, 1, self.sinks, self.recents)
        scores_RGP = scores_RGP.masked_fill(masks.absent_RP.unsqueeze(1), -torch.inf)
        mass_RP = self.reduced(scores_RGP, visible) / scores_RGP.shape[1]
        order_RP = mass_RP.masked_fill(masks.forced_RP, torch.inf)
        best = order_RP.topk(min(self.most_tokens(visible.longest), num_tokens), dim=1)
        taken_RC = mass_RP.gather(1, best.indices).clamp(min=0)
        before_RC = taken_RC.cumsum(dim=1) - taken_RC
        # Rounded sums may say that all is taken while a token is left.
        enough = torch.inf if self.mass == 1 else self.mass
        valid_RC = (before_RC < enough) | best.values.isposinf()
        valid_RC &= best.values > -torch.inf
        if (columns_R := self.columns(visible)) is not None:
            column_C = torch.arange(valid_RC.shape[1], device=columns_R.device)
            valid_RC &= column_C < columns_R.unsqueeze(1)
        width = int(valid_RC.sum(dim=1).amax())
        return ascending(best.indices[:, :width], valid_RC[:, :width], num_tokens)
