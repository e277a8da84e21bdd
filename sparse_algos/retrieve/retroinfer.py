"""RetroInfer (Chen et al., PVLDB 19(5), arXiv:2505.02922): clusters of keys, ranked by centroids.

Its zones: first and last tokens and the best clusters are read exactly; the next best clusters are
estimated by their centroids, sizes and mean values; the rest does not count. We read as many whole
clusters as the budget of tokens holds, where the paper reads a share of the clusters.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from sparse_algos.checks import check_count
from sparse_algos.clustered import ClusterRetriever
from sparse_algos.index_data import Queries, Summaries, TensorSpec
from sparse_algos.nearest import nearest


class Sums(NamedTuple):
    """Sum of the vectors of each label, and how many of them are live."""

    sum_NPD: Tensor
    count_NP1: Tensor


@dataclass(frozen=True, kw_only=True)
class RetroInfer(ClusterRetriever):
    """Segmented k-means of the rotated keys; a cluster's score is that of its mean key.

    segment_tokens: tokens clustered among themselves before the last pass, which knows no
    segments; iterations: passes in all. The number of clusters is a multiple of that of segments.
    """

    segment_tokens: int
    iterations: int

    scored: ClassVar[str | None] = "centroid"

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.segment_tokens", self.segment_tokens, least=1)
        check_count("algo.retrieve.iterations", self.iterations, least=1)
        if self.segment_tokens < 2 * self.cluster_tokens:
            raise ValueError(
                f"algo.retrieve.segment_tokens={self.segment_tokens} is less than two clusters of "
                f"algo.retrieve.cluster_tokens={self.cluster_tokens}; raise it to "
                f"{2 * self.cluster_tokens}"
            )
        super().__post_init__()

    def num_clusters(self, num_tokens: int) -> int:
        """See ClusterRetriever."""
        segments = self._num_segments(num_tokens)
        return segments * max(1, num_tokens // (self.cluster_tokens * segments))

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The mean key; where clusters are estimated, the mean value and the number of tokens."""
        centroid = {"centroid": TensorSpec((head_dim,), dtype)}
        if not self.estimates:
            return centroid
        value, size = TensorSpec((head_dim,), dtype), TensorSpec((1,), torch.float32)
        return centroid | {"value": value, "size": size}

    def scoring_query(self, queries: Queries) -> Tensor:
        """Makes the attention logits of the centroids, q.c / sqrt(D)."""
        return queries.query_RQD * queries.query_RQD.shape[-1] ** -0.5

    def cluster(self, keys_RTD: Tensor) -> Tensor:
        """See ClusterRetriever: k-means by dot product over centred keys, without randomness.

        Keys are compared in their own dtype, which is exact enough to rank them, and averaged in
        float32.
        """
        rows, tokens, dim = keys_RTD.shape
        mean_R1D = keys_RTD.mean(dim=1, keepdim=True, dtype=torch.float32)
        keys_RTD = (keys_RTD - mean_R1D).to(keys_RTD.dtype)
        segments = self._num_segments(tokens)
        length = -(-tokens // segments)
        keys_NTD = pad(keys_RTD, (0, 0, 0, segments * length - tokens)).view(-1, length, dim)
        lengths = torch.full((segments,), length, device=keys_RTD.device)
        lengths[-1] = tokens - (segments - 1) * length
        lengths_N = lengths.repeat(rows)
        centroids_NPD = _evenly(keys_NTD, lengths_N, self.num_clusters(tokens) // segments)
        for _ in range(self.iterations - 1):
            centroids_NPD = _moved(keys_NTD, lengths_N, centroids_NPD)
        return nearest(keys_RTD, centroids_NPD.reshape(rows, -1, dim))

    def summarise(
        self, keys_RTD: Tensor, values_RTD: Tensor, labels_RT: Tensor, num_clusters: int
    ) -> Summaries:
        """See ClusterRetriever."""
        ones_RT = torch.ones_like(labels_RT, dtype=torch.float32)
        keys = _sums(keys_RTD, ones_RT, labels_RT, num_clusters)
        least_NP1 = keys.count_NP1.clamp(min=1)
        centroid = {"centroid": (keys.sum_NPD / least_NP1).to(keys_RTD.dtype)}
        if not self.estimates:
            return centroid
        values = _sums(values_RTD, ones_RT, labels_RT, num_clusters)
        value_RPD = (values.sum_NPD / least_NP1).to(values_RTD.dtype)
        return centroid | {"value": value_RPD, "size": keys.count_NP1}

    def _num_segments(self, num_tokens: int) -> int:
        return max(1, round(num_tokens / self.segment_tokens))


def _evenly(keys_NTD: Tensor, lengths_N: Tensor, count: int) -> Tensor:
    """Keys at even distances, [N, count, D]."""
    place_P = torch.arange(count, device=keys_NTD.device)
    at_NP = place_P * lengths_N.unsqueeze(1) // count
    return keys_NTD.gather(1, at_NP.unsqueeze(2).expand(-1, -1, keys_NTD.shape[2]))


def _moved(keys_NTD: Tensor, lengths_N: Tensor, centroids_NPD: Tensor) -> Tensor:
    """Directions of the means of the nearest keys; a centroid that has none stays."""
    labels_NT = nearest(keys_NTD, centroids_NPD)
    place_T = torch.arange(keys_NTD.shape[1], device=keys_NTD.device)
    live_NT = (place_T < lengths_N.unsqueeze(1)).float()
    sums = _sums(keys_NTD, live_NT, labels_NT, centroids_NPD.shape[1])
    directions_NPD = normalize(sums.sum_NPD, dim=2).to(keys_NTD.dtype)
    return torch.where(sums.count_NP1 > 0, directions_NPD, centroids_NPD)


def _sums(keys_NTD: Tensor, live_NT: Tensor, labels_NT: Tensor, count: int) -> Sums:
    """In float32, row by row: a copy of all keys in float32 is larger than any cache."""
    rows, _, dim = keys_NTD.shape
    sum_NPD = keys_NTD.new_zeros((rows, count, dim), dtype=torch.float32)
    count_NP = keys_NTD.new_zeros((rows, count), dtype=torch.float32)
    for row, labels_T in enumerate(labels_NT):
        sum_NPD[row].index_add_(0, labels_T, keys_NTD[row].float())
        count_NP[row].index_add_(0, labels_T, live_NT[row])
    return Sums(sum_NPD, count_NP.unsqueeze(2))
