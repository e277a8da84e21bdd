"""In how many tables tokens share a bucket with queries, counted where the codes lie."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from memory_tiers.native import Entry, load_entry
from memory_tiers.summary_store import SEGMENT, Segments

SOURCE = Path(__file__).with_name("collisions.cpp")
HEADERS = (Path(__file__).with_name("collisions.h"),)
ARGUMENTS = (*[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 6, *[ctypes.c_int] * 2)
# Below this, waking a second thread takes longer than the read.
BYTES_PER_THREAD = 1 << 20


def collisions(query_RQL: Tensor, segments: Segments, num_tokens: int) -> Tensor | None:
    """Equal codes of each query and each of the first tokens of its row, float32 [R, Q, P].

    Codes are uint8 or int16, and lie table by table. The columns of a segment that is absent hold
    0. None where there is no compiler, or no CPU to run what it makes.
    """
    pool_NCL, directory_RW = segments
    if not pool_NCL.is_cpu or (entry := compiled_collisions()) is None:
        return None
    assert pool_NCL.dtype == query_RQL.dtype and pool_NCL.dtype in (torch.uint8, torch.int16)
    assert pool_NCL.mT.is_contiguous() and pool_NCL.shape[1] == SEGMENT
    query_RQL, directory_RW = query_RQL.contiguous(), directory_RW.contiguous()
    rows, queries, tables = query_RQL.shape
    count_RQP = torch.empty(rows, queries, num_tokens)
    num_bytes = rows * num_tokens * tables * pool_NCL.itemsize
    refused = entry(
        query_RQL.data_ptr(),
        pool_NCL.data_ptr(),
        directory_RW.data_ptr(),
        count_RQP.data_ptr(),
        rows,
        directory_RW.shape[1],
        num_tokens,
        len(pool_NCL),
        queries,
        tables,
        pool_NCL.dtype == torch.int16,
        max(1, min(torch.get_num_threads(), num_bytes // BYTES_PER_THREAD)),
    )
    assert not refused, f"the directory points outside the pool of {len(pool_NCL)} segments"
    return count_RQP


def compiled_collisions() -> Entry | None:
    """The count in C++; None where there is no compiler, and torch counts instead."""
    return load_entry(SOURCE, "collisions", ARGUMENTS, HEADERS)
