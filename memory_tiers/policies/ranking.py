"""What policies that rank frames by one number have in common."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from memory_tiers.native import Entry, load_entry

EMPTY = torch.iinfo(torch.int64).max
SOURCE = Path(__file__).with_name("ranking.cpp")
ARGUMENTS = (*[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2, ctypes.c_void_p)


def empty_ranks(num_frames: int, device: torch.device) -> Tensor:
    """Ranks of frames that hold nothing, int64 [F]."""
    return torch.full((num_frames,), EMPTY, device=device)


def lowest(rank_F: Tensor, count: int, pinned_F: Tensor) -> Tensor:
    """At most `count` frames by rank, lowest first, in any order among equals.

    Neither empty frames nor pinned ones.
    """
    if count <= 0:
        return rank_F.new_empty(0)
    entry = compiled_lowest()
    if entry is None or not rank_F.is_cpu:
        return lowest_by_torch(rank_F, count, pinned_F)
    rank_F, pinned_F = rank_F.contiguous(), pinned_F.contiguous()
    assert rank_F.dtype == torch.int64 and pinned_F.dtype == torch.bool
    assert len(rank_F) == len(pinned_F)
    count = min(count, len(rank_F))
    found_N = rank_F.new_empty(count)
    num = entry(rank_F.data_ptr(), pinned_F.data_ptr(), len(rank_F), count, found_N.data_ptr())
    return found_N[:num]


def lowest_by_torch(rank_F: Tensor, count: int, pinned_F: Tensor) -> Tensor:
    """What `lowest` does, on any device: the oracle of the compiled way."""
    free_F = torch.where(pinned_F, EMPTY, rank_F)
    found = free_F.topk(min(count, free_F.numel()), largest=False)
    return found.indices[found.values < EMPTY]


def compiled_lowest() -> Entry | None:
    """The pass in C++; None where there is no compiler, and torch ranks instead."""
    return load_entry(SOURCE, "lowest", ARGUMENTS)
