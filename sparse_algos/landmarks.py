"""What ShadowKV's variants share: mean keys of chunks, and the chunks that these say little of."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from sparse_algos.checks import check_count
from sparse_algos.index_data import NOTHING, Keys, Queries, Summaries, TensorSpec
from sparse_algos.retriever import Retriever
from sparse_algos.selection import PartitionKind, Selection, Visible


@dataclass(frozen=True, kw_only=True)
class LandmarkRetriever(Retriever):
    """Ranks chunks by the attention of their landmarks, the means of their rotated keys.

    chunk_tokens: tokens per chunk; outlier_chunks: so many of each row are always read, inside the
    budget: those whose landmark is least like one of their keys.
    """

    chunk_tokens: int
    outlier_chunks: int

    kind: ClassVar[PartitionKind] = "block"
    scored: ClassVar[str | None] = "landmark"
    takes_best: ClassVar[bool] = False
    weighed: ClassVar[tuple[str, ...]] = ("cosine",)

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.chunk_tokens", self.chunk_tokens, least=1)
        check_count("algo.retrieve.outlier_chunks", self.outlier_chunks, least=0)
        if self.pool_heads:
            raise ValueError(
                "algo.retrieve.pool_heads=true: each kv head has outliers of its own; use false"
            )
        if isinstance(self.budget_tokens, int) and self.budget_tokens < self.least_budget:
            raise ValueError(
                f"algo.retrieve.budget_tokens={self.budget_tokens} cannot hold sinks, recents and "
                f"outliers, which take up to {self.least_budget} tokens; raise it, or lower "
                "algo.retrieve.outlier_chunks"
            )
        super().__post_init__()

    @property
    def partition_size(self) -> int:
        """See Retriever."""
        return self.chunk_tokens

    @property
    def waits(self) -> int | None:
        """How like its keys a landmark is, is known when the chunk is whole."""
        return 0

    @property
    def least_budget(self) -> int:
        """Sinks, recents and outliers."""
        return super().least_budget + self.outlier_chunks * self.chunk_tokens

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The mean key, and the least cosine between it and a key."""
        return {
            "landmark": TensorSpec((head_dim,), dtype),
            "cosine": TensorSpec((), torch.float32),
        }

    def build(self, keys: Keys) -> Summaries:
        """See Retriever."""
        dead_RPS = ~keys.live_RPS
        key_RPSD = keys.key_RPSD.float().masked_fill(dead_RPS.unsqueeze(3), 0)
        count_RP1 = keys.live_RPS.sum(dim=2, keepdim=True).clamp(min=1)
        landmark_RPD = key_RPSD.sum(dim=2) / count_RP1
        cosine_RPS = cosine_similarity(key_RPSD, landmark_RPD.unsqueeze(2), dim=3)
        return {
            "landmark": landmark_RPD.to(keys.key_RPSD.dtype),
            "cosine": cosine_RPS.masked_fill(dead_RPS, 1).amin(dim=2),
        }

    def scoring_query(self, queries: Queries) -> Tensor:
        """Makes the attention logits of the landmarks, q.l / sqrt(D)."""
        return queries.query_RQD * queries.query_RQD.shape[-1] ** -0.5

    def select(
        self, scores_RGP: Tensor, visible: Visible, summaries: Summaries = NOTHING
    ) -> Selection:
        """Sinks and recents, then outliers, then the best of the other chunks."""
        num_chunks = scores_RGP.shape[2]
        masks = visible.masks(num_chunks, self.chunk_tokens, self.sinks, self.recents)
        taken_RP = masks.absent_RP | masks.forced_RP
        outlier_RP = self.outliers(summaries["cosine"].masked_fill(taken_RP, torch.inf))
        scores_RGP = scores_RGP.masked_fill((taken_RP | outlier_RP).unsqueeze(1), -torch.inf)
        scores_RP = self.reduced(scores_RGP, visible)
        return self.best(scores_RP.masked_fill(masks.forced_RP | outlier_RP, torch.inf), visible)

    def outliers(self, cosine_RP: Tensor) -> Tensor:
        """The chunks of least cosine; those of no finite one are none."""
        count = min(self.outlier_chunks, cosine_RP.shape[1])
        least = cosine_RP.topk(count, dim=1, largest=False)
        is_one_RP = torch.zeros_like(cosine_RP, dtype=torch.bool)
        return is_one_RP.scatter(1, least.indices, least.values.isfinite())
