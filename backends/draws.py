"""What rows read whose queries draw hashed tokens, chosen in one pass over the codes."""

import ctypes
import struct
from pathlib import Path

import torch
from torch import Tensor

from memory_tiers.native import Entry, load_entry
from memory_tiers.summary_store import SEGMENT, Segments
from sparse_algos.hashed import HashedRetriever
from sparse_algos.selection import Selection, Visible

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "draws.cpp"
HEADERS = (FOLDER / "collisions.h", FOLDER / "attention" / "best.h")
ARGUMENTS = (ctypes.c_char_p, ctypes.c_int)
# As `Draws` in draws.cpp.
BLOCK = struct.Struct("=10Q11q")
MOST_QUERIES = 64
# Below this, waking a second thread takes longer than the read.
BYTES_PER_THREAD = 1 << 20


def draws(
    retrieve: HashedRetriever, query_RGL: Tensor, segments: Segments, visible: Visible
) -> Selection | None:
    """The same as `retrieve.select` by the collisions of these codes, uint8 or int16.

    They lie table by table. None where there is no compiler, or no CPU to run what it makes, and
    where tokens are gone.
    """
    pool_NCL, directory_RW = segments
    served = pool_NCL.is_cpu and query_RGL.shape[1] <= MOST_QUERIES and visible.alive_RP is None
    if not served or (entry := compiled_draws()) is None:
        return None
    assert visible.covered_R is not None and pool_NCL.dtype == query_RGL.dtype
    assert pool_NCL.dtype in (torch.uint8, torch.int16)
    assert pool_NCL.mT.is_contiguous() and pool_NCL.shape[1] == SEGMENT
    rows, group, tables = query_RGL.shape
    columns = min(retrieve.most_tokens(visible.longest), visible.longest)
    allowed_R1 = retrieve.allowed_R1(visible.num_tokens_R)
    per_row = (visible.num_tokens_R, visible.covered_R, allowed_R1)
    assert all(one.dtype == torch.int64 and len(one) == rows for one in per_row)
    taken = (query_RGL, pool_NCL.mT, directory_RW, *per_row)
    found = (
        torch.empty(rows, columns, dtype=torch.int64),
        torch.empty(rows, columns, dtype=torch.bool),
        torch.empty(rows, group, columns, dtype=torch.bool),
        torch.empty(rows, group, columns),
    )
    # They must live until the call is over.
    tensors = [one.contiguous() for one in (*taken, *found)]
    num_bytes = rows * directory_RW.shape[1] * SEGMENT * tables * pool_NCL.itemsize
    block = BLOCK.pack(
        *(one.data_ptr() for one in tensors),
        *(rows, directory_RW.shape[1], len(pool_NCL), group, tables, columns),
        *(retrieve.sinks, retrieve.recents, retrieve.least_collisions, visible.longest),
        max(1, min(torch.get_num_threads(), num_bytes // BYTES_PER_THREAD)),
    )
    refused = entry(block, pool_NCL.dtype == torch.int16)
    assert not refused, f"the directory points outside the pool of {len(pool_NCL)} segments"
    chosen_RC, valid_RC, drawn_RGC, bias_RGC = found
    return Selection(chosen_RC, valid_RC, bias_RGC=bias_RGC, drawn_RGC=drawn_RGC)


def compiled_draws() -> Entry | None:
    """The pass in C++; None where there is no compiler, and torch draws instead."""
    return load_entry(SOURCE, "draws", ARGUMENTS, HEADERS)
