"""What the index hands to a retriever, from plain tensors."""

import torch
from torch import Tensor

from sparse_algos.model_shape import ModelShape, Rotary
from sparse_algos.retriever import Keys, NewKeys, Queries


def keys_of(
    key_RPSD: Tensor,
    live_RPS: Tensor | None = None,
    *,
    first: int = 0,
    layer: int = 0,
    query_RTD: Tensor | None = None,
) -> Keys:
    """Partitions from number `first` on in every row; all slots hold a token unless said."""
    if live_RPS is None:
        live_RPS = torch.ones(key_RPSD.shape[:3], dtype=torch.bool)
    first_R = torch.full((len(key_RPSD),), first)
    return Keys(key_RPSD, live_RPS, first_R, layer, query_RTD)


def new_keys_of(key_RD: Tensor, count: int, layer: int = 0) -> NewKeys:
    """One more key for partitions that hold `count`."""
    return NewKeys(key_RD, torch.full((len(key_RD),), count), layer)


def queries_of(
    query_RQD: Tensor, num_partitions: int, *, layer: int = 0, position: int = 0
) -> Queries:
    """Queries of one token per row, at this position."""
    position_RM = torch.full((len(query_RQD), 1), position)
    return Queries(query_RQD, position_RM, layer, num_partitions)


def junk(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """What memory may hold where nothing was written."""
    return torch.full(shape, torch.nan if dtype.is_floating_point else 77, dtype=dtype)


def shape_of(
    *, layers: int = 3, kv_heads: int = 2, group: int = 2, head_dim: int = 16, base: float = 1e4
) -> ModelShape:
    """A model that rotates keys as usual."""
    frequency_E = base ** -(torch.arange(0, head_dim, 2).float() / head_dim)
    return ModelShape(
        name="random",
        num_layers=layers,
        num_heads=kv_heads * group,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rotary=Rotary(frequency_E),
    )
