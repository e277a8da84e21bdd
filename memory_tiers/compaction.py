"""Compaction: what is left of rows moves together, and the pages that this empties are free."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from memory_tiers.base import Rows
from memory_tiers.manager import CacheManager


@dataclass(frozen=True)
class Survivors:
    """Tokens that stay, rows outermost, in the order that they had.

    row_N, slot_N: int64, the row, and the slot where it is now; key_ND; used_R: int64, tokens of
    each row.
    """

    row_N: Tensor
    slot_N: Tensor
    key_ND: Tensor
    used_R: Tensor


def compact(memory: CacheManager, rows: Rows, keep_RT: Tensor) -> Survivors:
    """Move the kept slots of each row to its first ones; every other page of it is given back.

    keep_RT: bool [R, T], live slots, T slots or more in use. Goes through the fast tier in parts
    that it holds; what stays is in working memory in between.
    """
    row_N, from_N = keep_RT.nonzero(as_tuple=True)
    used_R = keep_RT.sum(dim=1)
    to_N = (keep_RT.cumsum(dim=1) - 1)[keep_RT]
    size = memory.geometry.page_tokens
    first_N = rows.first_page_R[row_N]
    key_ND, value_ND = _read(memory, first_N + from_N // size, from_N % size)
    columns = -(-rows.longest // size)
    pages_RP = rows.first_page_R.unsqueeze(1) + torch.arange(columns, device=row_N.device)
    memory.forget(pages_RP.flatten())
    _write(memory, first_N + to_N // size, to_N % size, key_ND, value_ND)
    return Survivors(row_N, to_N, key_ND, used_R)


def _read(memory: CacheManager, pages_N: Tensor, slots_N: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of slots, [N, D] each; the pages of a row ascend."""
    parts = []
    for part in _parts(memory, pages_N):
        wanted_P, at_N = pages_N[part].unique(return_inverse=True)
        frames_N = memory.bring(wanted_P).frames_N[at_N]
        parts.append(memory.pool_FPSD[frames_N, :, slots_N[part]])
    both_NPD = torch.cat(parts)
    return both_NPD[:, 0], both_NPD[:, 1]


def _write(
    memory: CacheManager, pages_N: Tensor, slots_N: Tensor, key_ND: Tensor, value_ND: Tensor
) -> None:
    for part in _parts(memory, pages_N):
        memory.write(pages_N[part], slots_N[part], key_ND[part], value_ND[part])


def _parts(memory: CacheManager, pages_N: Tensor) -> Iterator[slice]:
    """Cut tokens, those of a page next to each other, where the fast tier is full."""
    _, tokens_P = pages_N.unique_consecutive(return_counts=True)
    stop_P = tokens_P.cumsum(0)
    start = 0
    for _, last in memory.waves(len(stop_P)):
        stop = int(stop_P[last - 1])
        yield slice(start, stop)
        start = stop
