"""What policies that rank frames by one number have in common."""

import torch
from torch import Tensor

EMPTY = torch.iinfo(torch.int64).max


def empty_ranks(num_frames: int, device: torch.device) -> Tensor:
    """Ranks of frames that hold nothing, int64 [F]."""
    return torch.full((num_frames,), EMPTY, device=device)


def lowest(rank_F: Tensor, count: int, pinned_F: Tensor) -> Tensor:
    """At most `count` frames by rank, lowest first, in any order among equals.

    Neither empty frames nor pinned ones.
    """
    if count == 0:
        return rank_F.new_empty(0)
    free_F = torch.where(pinned_F, EMPTY, rank_F)
    found = free_F.topk(min(count, free_F.numel()), largest=False)
    return found.indices[found.values < EMPTY]
