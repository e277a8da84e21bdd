"""SnapKV (Li et al., NeurIPS 2024, arXiv:2404.14469): what the last queries of a prompt looked at.

Scores are averaged over the query heads of a kv head; the paper has none to share a key.
"""

from dataclasses import dataclass

from sparse_algos.observed import ObservedEvictor


@dataclass(frozen=True, kw_only=True)
class SnapKV(ObservedEvictor):
    """Keeps the best tokens of each kv head, and the window that was asked."""
