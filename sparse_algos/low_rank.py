"""What a retriever with keys of low rank is: they are rebuilt from factors, not kept."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.model_shape import ModelShape, Rotary
from sparse_algos.retriever import IndexKind, Retriever


class Factors(NamedTuple):
    """Keys before rotation as products: coordinates_TE of each token, basis_KED of each kv head."""

    coordinates_TE: Tensor
    basis_KED: Tensor


@dataclass(frozen=True, kw_only=True)
class LowRankRetriever(Retriever):
    """Keys before rotation, all kv heads of a layer side by side, are products of two factors.

    rank: of these keys; those of a model have no more than K * D.
    """

    rank: int
    _rotary: Rotary | None = field(default=None, repr=False, compare=False)

    needs_positions: ClassVar[bool] = True
    rebuilds_keys: ClassVar[bool] = True
    index_kind: ClassVar[IndexKind] = "rebuilt"

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.rank", self.rank, least=1)
        super().__post_init__()

    def fitted(self, model: ModelShape) -> Self:
        """See Retriever: with the model's rotation, and a rank that its keys can have."""
        if model.rotary is None:
            raise ValueError(
                f"algo.retrieve rebuilds keys from before their rotation, and model {model.name} "
                "rotates them in a way that it does not know; use algo=shadowkv"
            )
        rank = min(self.rank, model.num_kv_heads * model.head_dim)
        return replace(self, rank=rank, _rotary=model.rotary)

    @property
    def rotary(self) -> Rotary:
        """How the model rotates keys."""
        assert self._rotary is not None, "the retriever is `fitted` to its model before use"
        return self._rotary

    def other_bytes(self, num_kv_heads: int, dtype: torch.dtype) -> float:
        """See Retriever: all kv heads share the coordinates of a token."""
        return self.rank * dtype.itemsize / num_kv_heads

    @abstractmethod
    def rebuilds(self, summaries_RP: Tensor, num_tokens: int) -> Tensor:
        """Partitions of a context of `num_tokens` whose keys are rebuilt from now on, bool [R, P].

        summaries_RP: the one that `weighed` names.
        """

    def factorised(self, key_KTD: Tensor) -> Factors:
        """The best factors for the rotated keys of tokens 0 .. T - 1, in their dtype."""
        heads, length, dim = key_KTD.shape
        position_T = torch.arange(length, device=key_KTD.device)
        plain_KTD = self.rotary.turned(key_KTD, position_T, back=True)
        plain_TN = plain_KTD.transpose(0, 1).flatten(1)
        # The right singular vectors, from the small Gram matrix: a fraction of the time of an SVD.
        _, vectors_NN = torch.linalg.eigh((plain_TN.mT @ plain_TN).double())
        basis_NE = vectors_NN[:, -self.rank :].flip(1).float()
        basis_KED = basis_NE.view(heads, dim, self.rank).transpose(1, 2).contiguous()
        return Factors((plain_TN @ basis_NE).to(key_KTD.dtype), basis_KED.to(key_KTD.dtype))

    def rebuilt(self, coordinates_RNE: Tensor, basis_RED: Tensor, position_RN: Tensor) -> Tensor:
        """Rotated keys of tokens at these positions, of a kv head for each row: [R, N, D]."""
        plain_RND = coordinates_RNE.float() @ basis_RED.float()
        return self.rotary.turned(plain_RND, position_RN).to(coordinates_RNE.dtype)
