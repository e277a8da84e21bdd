"""Which blocks of vLLM's cache go to which places of host memory."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Move(NamedTuple):
    """Blocks of a group, and where each is in host memory: int64 [N]."""

    group: int
    blocks_N: Tensor
    places_N: Tensor


def plan_moves(blocks: Any, chunk_ids_N: np.ndarray[Any, Any], chunk_blocks: int) -> Iterator[Move]:
    """Blocks of each group, in order, lie in consecutive chunks; the first may begin amid one.

    blocks: vLLM's spec of them; chunk_ids_N: those of all groups, one group after the other.
    """
    blocks_N = torch.from_numpy(blocks.block_ids).long()
    chunks_N = torch.from_numpy(chunk_ids_N).long()
    block = chunk = 0
    sizes = zip(blocks.group_sizes, blocks.block_indices, strict=True)
    for group, (count, index) in enumerate(sizes):
        if not count:
            continue
        skipped = index % chunk_blocks
        num_chunks = -(-(skipped + count) // chunk_blocks)
        places_CB = chunks_N[chunk : chunk + num_chunks, None] * chunk_blocks
        places_N = (places_CB + torch.arange(chunk_blocks)).flatten()[skipped : skipped + count]
        yield Move(group, blocks_N[block : block + count], places_N)
        block, chunk = block + count, chunk + num_chunks
    assert (block, chunk) == (len(blocks_N), len(chunks_N)), (block, chunk)
