"""Loki's calibration: principal components of keys, before and after their rotation."""

import torch
from torch import Tensor

from models.fit.base import Fitter, Seen
from sparse_algos.model_shape import ModelShape, Rotary


class _Moments:
    """First and second moments of keys, in float64."""

    def __init__(self, model: ModelShape) -> None:
        """No key was added."""
        shape = (model.num_layers, model.num_kv_heads, model.head_dim)
        self._count_L11 = torch.zeros(model.num_layers, 1, 1, dtype=torch.float64)
        self._sum_LKD = torch.zeros(shape, dtype=torch.float64)
        self._squares_LKDD = torch.zeros(*shape, model.head_dim, dtype=torch.float64)

    def add(self, layer: int, key_KTD: Tensor) -> None:
        key_KTD = key_KTD.double()
        self._count_L11[layer] += key_KTD.shape[1]
        self._sum_LKD[layer] += key_KTD.sum(dim=1)
        self._squares_LKDD[layer] += key_KTD.mT @ key_KTD

    def basis(self) -> Tensor:
        """Eigenvectors of the covariances, a column each, that of the largest variance first."""
        count_L11 = self._count_L11.clamp(min=1)
        mean_LKD = self._sum_LKD / count_L11
        second_LKDD = self._squares_LKDD / count_L11.unsqueeze(-1)
        covariance_LKDD = second_LKDD - mean_LKD.unsqueeze(-1) * mean_LKD.unsqueeze(-2)
        vectors_LKDD = torch.linalg.eigh(covariance_LKDD).eigenvectors.flip(-1)
        # A sign is free: the largest entry of each component is made positive.
        largest_LK1D = vectors_LKDD.abs().argmax(dim=-2, keepdim=True)
        signed_LKDD = vectors_LKDD * vectors_LKDD.gather(-2, largest_LK1D).sign()
        return signed_LKDD.float().contiguous()


class Components(Fitter):
    """Bases of rotated keys, and of plain ones where the model's rotation is known."""

    def __init__(self, model: ModelShape) -> None:
        """See Fitter."""
        super().__init__(model)
        self._post = _Moments(model)
        self._pre = _Moments(model)

    def see(self, seen: Seen) -> None:
        """See Fitter."""
        self._post.add(seen.layer, seen.key_KTD)
        if (rotary := self.model.rotary) is not None:
            self._pre.add(seen.layer, _plain(rotary, seen.key_KTD))

    def tensors(self) -> dict[str, Tensor]:
        """See Loki.tensor_shapes."""
        found = {"basis_post": self._post.basis()}
        if self.model.rotary is not None:
            found["basis_pre"] = self._pre.basis()
        return found


def _plain(rotary: Rotary, key_KTD: Tensor) -> Tensor:
    return rotary.turned(key_KTD, torch.arange(key_KTD.shape[1]), back=True)
