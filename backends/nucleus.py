"""Which candidates hold a share of the estimated weight, from rounded keys where they lie."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from memory_tiers.native import Entry, load_entry
from memory_tiers.summary_store import Segments

SOURCE = Path(__file__).with_name("nucleus.cpp")
ARGUMENTS = (*[ctypes.c_void_p] * 6, *[ctypes.c_int64] * 7, *[ctypes.c_float] * 2)


def kept_in_place(
    query_NGD: Tensor,
    code: Segments,
    range_NC2: Tensor,
    token_NC: Tensor,
    share: float,
    scale: float,
) -> Tensor | None:
    """Candidates that any query head of a row keeps, bool [N, C]; see `Twilight.prune`.

    code and range_NC2: pools of `quantised.packed`, and the segments of the index rows, of which
    several query rows in turn may share one; token_NC: int64, -1 where there is none. None where
    there is no compiler, or no CPU to run what it makes.
    """
    pool_NCE, directory_RW = code
    if not pool_NCE.is_cpu or (entry := compiled_nucleus()) is None:
        return None
    query_NGD, token_NC = query_NGD.float().contiguous(), token_NC.contiguous()
    directory_RW = directory_RW.contiguous()
    assert pool_NCE.dtype == torch.uint8 and range_NC2.dtype == torch.float16
    assert pool_NCE.is_contiguous() and range_NC2.is_contiguous() and token_NC.dtype == torch.int64
    assert 2 * pool_NCE.shape[2] == query_NGD.shape[2]
    kept_NC = torch.zeros(token_NC.shape, dtype=torch.bool)
    refused = entry(
        query_NGD.data_ptr(),
        pool_NCE.data_ptr(),
        range_NC2.data_ptr(),
        directory_RW.data_ptr(),
        token_NC.data_ptr(),
        kept_NC.data_ptr(),
        len(query_NGD),
        len(query_NGD) // len(directory_RW),
        directory_RW.shape[1],
        len(pool_NCE),
        token_NC.shape[1],
        *query_NGD.shape[1:],
        share,
        scale,
    )
    assert not refused, "a candidate has no rounded key"
    return kept_NC


def compiled_nucleus() -> Entry | None:
    """The pass in C++; None where there is no compiler, and torch prunes instead."""
    return load_entry(SOURCE, "nucleus", ARGUMENTS)
