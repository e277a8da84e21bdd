"""What a retriever over labels is: a few numbers per token that stand for its key in scores."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.index_data import Keys, NewKeys, Queries, Summaries, TensorSpec
from sparse_algos.model_shape import ModelShape
from sparse_algos.trained import TrainedRetriever
from sparse_algos.units import TokenRetriever


@dataclass(frozen=True, kw_only=True)
class LabelRetriever(TokenRetriever, TrainedRetriever):
    """Reads the tokens whose labels have the largest products with the query's own label.

    label_channels: numbers in a label; compiled kernels take multiples of 16.
    """

    label_channels: int

    scored: ClassVar[str | None] = "label"

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.label_channels", self.label_channels, least=1)
        super().__post_init__()

    @abstractmethod
    def label(self, vector_RND: Tensor, layer: int) -> Tensor:
        """Labels of rotated keys or queries of rows, kv heads innermost: [R, N, label_channels]."""

    def with_tensors(self, found: dict[str, Tensor], model: ModelShape) -> Self:
        """See TrainedRetriever; a label is no longer than a key."""
        if self.label_channels > model.head_dim:
            raise ValueError(
                f"algo.retrieve.label_channels={self.label_channels}: keys of model {model.name} "
                f"have {model.head_dim} channels; lower it, best to a quarter of that or less"
            )
        return super().with_tensors(found, model)

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The label."""
        return {"label": TensorSpec((self.label_channels,), dtype)}

    def build(self, keys: Keys) -> Summaries:
        """See Retriever; a partition has one slot, which is live."""
        key_RPD = keys.key_RPSD[:, :, 0]
        return {"label": self.label(key_RPD, keys.layer).to(key_RPD.dtype)}

    def append(self, old: Summaries, new: NewKeys) -> Summaries:
        """See Retriever."""
        label_R1E = self.label(new.key_RD.unsqueeze(1), new.layer)
        return {"label": label_R1E.squeeze(1).to(new.key_RD.dtype)}

    def scoring_query(self, queries: Queries) -> Tensor:
        """Makes an estimate of the attention logits, q.k / sqrt(D)."""
        query_RQD = queries.query_RQD
        label_RQE = self.label(query_RQD, queries.layer) * query_RQD.shape[-1] ** -0.5
        return label_RQE.to(query_RQD.dtype)
