"""Loki (Singhania et al., NeurIPS 2024, arXiv:2406.02542): tokens by the principal parts of keys.

The basis of each layer and kv head is calibrated once. The cache keeps the keys as they are beside
the labels, where the paper stores them in the basis: the products are the same.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from sparse_algos.labels import LabelRetriever
from sparse_algos.model_shape import ModelShape
from sparse_algos.trained import per_head


@dataclass(frozen=True, kw_only=True)
class Loki(LabelRetriever):
    """A label is the key in the first `label_channels` principal components (section 4.1).

    rotary: whether the basis is that of keys after the rotation to their positions (post) or before
    it (pre); it is applied to rotated ones in either case, as in the paper.
    """

    rotary: Literal["post", "pre"]

    trained: ClassVar[str | None] = "principal components"

    def __post_init__(self) -> None:
        """See Retriever."""
        if self.rotary not in ("post", "pre"):
            raise ValueError(f"algo.retrieve.rotary={self.rotary!r}: use post or pre")
        super().__post_init__()

    @property
    def made_by(self) -> str:
        """See TrainedRetriever."""
        return "python -m models.fit algo=loki model=..."

    def tensor_shapes(self, model: ModelShape) -> dict[str, tuple[int, ...]]:
        """Orthonormal bases, a component a column, that of the largest variance first."""
        shape = (model.num_layers, model.num_kv_heads, model.head_dim, model.head_dim)
        return {f"basis_{self.rotary}": shape}

    def label(self, vector_RND: Tensor, layer: int) -> Tensor:
        """See LabelRetriever."""
        basis_KDD = self.tensor(f"basis_{self.rotary}", layer)
        return per_head(basis_KDD[..., : self.label_channels], vector_RND)
