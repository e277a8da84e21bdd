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
from sparse_algos.index_data import Estimate, Queries, Read, Summaries, TensorSpec

# Similarities held at one time, so that a long context needs no quadratic memory.
BLOCK_ELEMENTS = 1 << 24


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
        """See ClusterRetriever: k-means by dot product over centred keys, without randomness."""
        rows, tokens, dim = keys_RTD.shape
        keys_RTD = keys_RTD.float()
        keys_RTD = keys_RTD - keys_RTD.mean(dim=1, keepdim=True)
        segments = self._num_segments(tokens)
        length = -(-tokens // segments)
        keys_NTD = pad(keys_RTD, (0, 0, 0, segments * length - tokens)).view(-1, length, dim)
        lengths = torch.full((segments,), length, device=keys_RTD.device)
        lengths[-1] = tokens - (segments - 1) * length
        lengths_N = lengths.repeat(rows)
        centroids_NPD = _evenly(keys_NTD, lengths_N, self.num_clusters(tokens) // segments)
        for _ in range(self.iterations - 1):
            centroids_NPD = _moved(keys_NTD, lengths_N, centroids_NPD)
        return _nearest(keys_RTD, centroids_NPD.reshape(rows, -1, dim))

    def summarise(
        self, keys_RTD: Tensor, values_RTD: Tensor, labels_RT: Tensor, num_clusters: int
    ) -> Summaries:
        """See ClusterRetriever."""
        ones_RT = torch.ones_like(labels_RT, dtype=torch.float32)
        keys = _sums(keys_RTD.float(), ones_RT, labels_RT, num_clusters)
        least_NP1 = keys.count_NP1.clamp(min=1)
        centroid = {"centroid": (keys.sum_NPD / least_NP1).to(keys_RTD.dtype)}
        if not self.estimates:
            return centroid
        values = _sums(values_RTD.float(), ones_RT, labels_RT, num_clusters)
        value_RPD = (values.sum_NPD / least_NP1).to(values_RTD.dtype)
        return centroid | {"value": value_RPD, "size": keys.count_NP1}

    def estimate(self, read: Read) -> Estimate:
        """Each estimated cluster counts as `size` tokens of its mean key and mean value."""
        assert read.selection is not None and read.scores_RGP is not None
        estimated_RC = read.selection.estimated_RC
        assert estimated_RC is not None
        at_RGC = estimated_RC.clamp(min=0).unsqueeze(1).expand(-1, read.scores_RGP.shape[1], -1)
        # Scores are logits of the usual scale, models may have another.
        logits_RGC = read.scores_RGP.gather(2, at_RGC) * (
            read.scale * read.query_RGD.shape[2] ** 0.5
        )
        logits_RGC = logits_RGC + read.summaries["size"].mT.log()
        logits_RGC = logits_RGC.masked_fill(estimated_RC.unsqueeze(1) < 0, -torch.inf)
        # Columns of no cluster hold another one's value: finite, under a weight of 0.
        value_RCD = read.summaries["value"].float()
        lse_RG = logits_RGC.logsumexp(dim=2)
        weight_RGC = torch.nan_to_num(logits_RGC.softmax(dim=2))
        return Estimate(weight_RGC @ value_RCD, lse_RG)

    def _num_segments(self, num_tokens: int) -> int:
        return max(1, round(num_tokens / self.segment_tokens))


def _evenly(keys_NTD: Tensor, lengths_N: Tensor, count: int) -> Tensor:
    """Keys at even distances, [N, count, D]."""
    place_P = torch.arange(count, device=keys_NTD.device)
    at_NP = place_P * lengths_N.unsqueeze(1) // count
    return keys_NTD.gather(1, at_NP.unsqueeze(2).expand(-1, -1, keys_NTD.shape[2]))


def _moved(keys_NTD: Tensor, lengths_N: Tensor, centroids_NPD: Tensor) -> Tensor:
    """Directions of the means of the nearest keys; a centroid that has none stays."""
    labels_NT = _nearest(keys_NTD, centroids_NPD)
    place_T = torch.arange(keys_NTD.shape[1], device=keys_NTD.device)
    live_NT = (place_T < lengths_N.unsqueeze(1)).float()
    sums = _sums(keys_NTD, live_NT, labels_NT, centroids_NPD.shape[1])
    return torch.where(sums.count_NP1 > 0, normalize(sums.sum_NPD, dim=2), centroids_NPD)


def _nearest(keys_NTD: Tensor, centroids_NPD: Tensor) -> Tensor:
    """The centroid of largest dot product with each key, int64 [N, T]."""
    tokens = max(1, BLOCK_ELEMENTS // centroids_NPD.shape[:2].numel())
    return torch.cat(
        [(part @ centroids_NPD.mT).argmax(dim=2) for part in keys_NTD.split(tokens, dim=1)], dim=1
    )


def _sums(keys_NTD: Tensor, live_NT: Tensor, labels_NT: Tensor, count: int) -> Sums:
    rows, _, dim = keys_NTD.shape
    row_N1 = torch.arange(rows, device=keys_NTD.device).unsqueeze(1)
    label_M = (labels_NT + row_N1 * count).flatten()
    sums_MD = keys_NTD.new_zeros(rows * count, dim).index_add_(0, label_M, keys_NTD.flatten(0, 1))
    live_M = live_NT.new_zeros(rows * count).index_add_(0, label_M, live_NT.flatten())
    return Sums(sums_MD.view(rows, count, dim), live_M.view(rows, count, 1))
