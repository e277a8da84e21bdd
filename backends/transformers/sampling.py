"""Next tokens for a batch; what a request draws does not depend on its batch mates."""

import torch
from torch import Tensor


def draws_for(seed: int, count: int) -> Tensor:
    """The uniform numbers that a request will use, one per token, float32 [count]."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))


def next_tokens(logits_BV: Tensor, temperature_B: Tensor, draw_B: Tensor) -> Tensor:
    """Token ids, int64 [B]: the most likely where the temperature is 0, drawn elsewhere."""
    greedy_B = logits_BV.argmax(dim=-1)
    if not bool((temperature_B > 0).any()):
        return greedy_B
    scaled_BV = logits_BV.float() / temperature_B.clamp(min=1e-6).unsqueeze(1)
    reached_BV = scaled_BV.softmax(dim=-1).cumsum(dim=-1)
    # A share of the total, which rounding leaves beside 1; `right` never draws a token of 0.
    aim_B1 = draw_B.unsqueeze(1) * reached_BV[:, -1:]
    drawn_B = torch.searchsorted(reached_BV, aim_B1, right=True).squeeze(1)
    drawn_B = drawn_B.clamp(max=logits_BV.shape[-1] - 1)
    return torch.where(temperature_B > 0, drawn_B, greedy_B)
