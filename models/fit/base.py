"""What fitting is: prompts are shown to a model, and what its attention sees makes tensors."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse_algos.model_shape import ModelShape

Advance = Callable[[str], None]


@dataclass(frozen=True)
class Seen:
    """Rotated queries and keys of one prompt in one layer, float32.

    query_HTD, key_KTD; rows_M: int64, ascending, the tokens whose attention is looked at.
    """

    layer: int
    query_HTD: Tensor
    key_KTD: Tensor
    rows_M: Tensor

    def attention(self) -> Tensor:
        """Attention of the rows, per query head: [K, G, M, T]; it is causal."""
        num_kv_heads, num_tokens, dim = self.key_KTD.shape
        query_KGMD = self.query_HTD[:, self.rows_M].unflatten(0, (num_kv_heads, -1))
        logits_KGMT = query_KGMD @ self.key_KTD.mT.unsqueeze(1) * dim**-0.5
        future_MT = torch.arange(num_tokens) > self.rows_M.unsqueeze(1)
        return logits_KGMT.masked_fill(future_MT, -torch.inf).softmax(dim=-1)


class Fitter(ABC):
    """Collects what it is shown, layer by layer and prompt by prompt, and makes tensors of it."""

    def __init__(self, model: ModelShape) -> None:
        """Nothing was seen."""
        self.model = model

    @abstractmethod
    def see(self, seen: Seen) -> None:
        """Take in one layer of one prompt."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What the file shall hold, float32; layers outermost, kv heads next."""
