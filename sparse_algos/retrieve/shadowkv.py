"""ShadowKV (Sun et al., ICML 2025, arXiv:2410.21465): mean keys of small chunks, outliers apart.

This is the selector, with keys and values kept and fetched together, as SPIN runs it
(arXiv:2604.26837, table 1). The chunks that count as outliers follow the context as it grows, where
the paper names them once, after the prompt.
"""

from dataclasses import dataclass

from sparse_algos.landmarks import LandmarkRetriever


@dataclass(frozen=True, kw_only=True)
class ShadowKV(LandmarkRetriever):
    """Ranks chunks by the attention of their landmarks; keys are as they were stored."""
