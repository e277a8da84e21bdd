"""Double Sparsity (Yang et al., arXiv:2408.07092): tokens by the few channels that weigh most.

The channels of each layer and kv head are calibrated once: those of largest mean |q_c| |k_c| over
all pairs of tokens, where the released code has two kinds of vectors of one token only. Labels keep
the model's dtype; the paper's 4 bits are left out.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from sparse_algos.labels import LabelRetriever
from sparse_algos.model_shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class DoubleSparsity(LabelRetriever):
    """A label is the key itself in its `label_channels` strongest channels (section 3.2)."""

    trained: ClassVar[str | None] = "channel weights"

    @property
    def made_by(self) -> str:
        """See TrainedRetriever."""
        return "python -m models.fit algo=double_sparsity model=..."

    def tensor_shapes(self, model: ModelShape) -> dict[str, tuple[int, ...]]:
        """How much each channel contributes to attention logits."""
        return {"contribution": (model.num_layers, model.num_kv_heads, model.head_dim)}

    def with_tensors(self, found: dict[str, Tensor], model: ModelShape) -> Self:
        """See TrainedRetriever; the channels are chosen here, once."""
        fitted = super().with_tensors(found, model)
        channels_LKE = fitted._tensors["contribution"].topk(self.label_channels).indices
        return replace(fitted, _tensors={"channels": channels_LKE.sort().values})

    def label(self, vector_RND: Tensor, layer: int) -> Tensor:
        """See LabelRetriever."""
        channels_KE = self.tensor("channels", layer).to(vector_RND.device)
        rows, tokens, _ = vector_RND.shape
        channels_RE = channels_KE.repeat(rows // len(channels_KE), 1)
        return vector_RND.gather(2, channels_RE.unsqueeze(1).expand(-1, tokens, -1))
