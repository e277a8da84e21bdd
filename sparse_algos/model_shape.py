"""What an algorithm may know of a model: its shape and how it rotates keys."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Rotary(NamedTuple):
    """Rotary position embedding of half-split pairs: pair i turns by position * frequency_E[i].

    frequency_E: float32 [D / 2], radians per token; factor: what rotated vectors are scaled by.
    """

    frequency_E: Tensor
    factor: float = 1.0

    def turned(self, vector_ND: Tensor, position_N: Tensor, *, back: bool = False) -> Tensor:
        """Vectors [..., D] rotated to their positions [...], or back from them; float32."""
        angle_NE = position_N.unsqueeze(-1).float() * self.frequency_E.to(vector_ND.device)
        cosine_NE, sine_NE = angle_NE.cos(), angle_NE.sin()
        if back:
            cosine_NE, sine_NE = cosine_NE / self.factor, -sine_NE / self.factor
        else:
            cosine_NE, sine_NE = cosine_NE * self.factor, sine_NE * self.factor
        first_NE, second_NE = vector_ND.float().chunk(2, dim=-1)
        return torch.cat(
            (
                first_NE * cosine_NE - second_NE * sine_NE,
                second_NE * cosine_NE + first_NE * sine_NE,
            ),
            dim=-1,
        )


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of a model; rotary: None where keys are rotated in another way, or not at all."""

    name: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary: Rotary | None
