"""ShadowKV (Sun et al., ICML 2025, arXiv:2410.21465) whole: keys of low rank, only values fetched.

When a context is complete, its keys before rotation, all kv heads side by side, are factorised.
From then on the keys of its chunks are products of the factors, and of pages that leave the fast
tier only the values travel. Sinks, recents and outliers of that moment, and all that follows, keep
their keys. The paper rebuilds the keys of selected chunks in each step; here those of a page are
rebuilt when the page arrives, and stay with it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_algos.landmarks import LandmarkRetriever
from sparse_algos.low_rank import LowRankRetriever


@dataclass(frozen=True, kw_only=True)
class ShadowKVLowRank(LowRankRetriever, LandmarkRetriever):
    """Ranks chunks by the attention of their landmarks, the means of the keys as they were."""

    def rebuilds(self, summaries_RP: Tensor, num_tokens: int) -> Tensor:
        """See LowRankRetriever: all but sinks, recents and outliers."""
        start_P = torch.arange(summaries_RP.shape[1], device=summaries_RP.device)
        start_P = start_P * self.chunk_tokens
        last = num_tokens - self.recents
        inside_P = (start_P >= self.sinks) & (start_P + self.chunk_tokens <= last)
        outlier_RP = self.outliers(summaries_RP.masked_fill(~inside_P, torch.inf))
        return inside_P & ~outlier_RP
