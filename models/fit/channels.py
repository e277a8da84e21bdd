"""Double Sparsity's calibration: how much each channel contributes to attention logits."""

from typing import NamedTuple

import torch
from torch import Tensor

from models.fit.base import Fitter, Seen
from sparse_algos.model_shape import ModelShape


class _Sums(NamedTuple):
    query_LKD: Tensor
    key_LKD: Tensor


class Channels(Fitter):
    """Mean of |q_c| |k_c| over all pairs of a row's query and a token's key, groups averaged."""

    def __init__(self, model: ModelShape) -> None:
        """See Fitter."""
        super().__init__(model)
        shape = (model.num_layers, model.num_kv_heads, model.head_dim)
        self._sums = _Sums(torch.zeros(shape), torch.zeros(shape))

    def see(self, seen: Seen) -> None:
        """See Fitter; every prompt weighs the same."""
        query_HMD = seen.query_HTD[:, seen.rows_M].abs()
        query_KGMD = query_HMD.unflatten(0, (self.model.num_kv_heads, -1))
        self._sums.query_LKD[seen.layer] += query_KGMD.mean(dim=(1, 2))
        self._sums.key_LKD[seen.layer] += seen.key_KTD.abs().mean(dim=1)

    def tensors(self) -> dict[str, Tensor]:
        """See DoubleSparsity.tensor_shapes; scaled so that the channels of a head sum to 1."""
        product_LKD = self._sums.query_LKD * self._sums.key_LKD
        return {"contribution": product_LKD / product_LKD.sum(dim=-1, keepdim=True)}
