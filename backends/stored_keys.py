"""Keys that pages hold, for what looks at many of them at once."""

from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.base import prefix_bits
from memory_tiers.manager import CacheManager


class StoredKeys(NamedTuple):
    """Keys of consecutive tokens of all kv heads of a sequence, and which are still there."""

    key_KTD: Tensor
    held_KT: Tensor


def stored_keys(memory: CacheManager, first_page_K: Tensor, tokens: range) -> StoredKeys:
    """Keys of these tokens, read in waves that the fast tier holds; those gone hold anything."""
    size, dead_P = memory.geometry.page_tokens, memory.table.dead_P
    step = max(1, memory.num_fast_frames // len(first_page_K))
    last = -(-tokens.stop // size)
    slot_S = torch.arange(size, device=first_page_K.device)
    keys, held = [], []
    for start in range(tokens.start // size, last, step):
        page_N = torch.arange(start, min(start + step, last), device=first_page_K.device)
        pages_KN = first_page_K.unsqueeze(1) + page_N
        dead_KN = torch.zeros_like(pages_KN) if dead_P is None else dead_P[pages_KN]
        there_KN = (~dead_KN & prefix_bits(size, pages_KN.device)[-1]) != 0
        memory.fetch(pages_KN[there_KN])
        frames_KN = memory.frames(pages_KN).masked_fill(~there_KN, 0)
        found = slice(max(tokens.start - start * size, 0), tokens.stop - start * size)
        keys.append(memory.pool_FPSD[frames_KN, 0].flatten(1, 2)[:, found])
        held.append(((dead_KN.unsqueeze(2) >> slot_S & 1) == 0).flatten(1)[:, found])
    return StoredKeys(torch.cat(keys, dim=1), torch.cat(held, dim=1))
