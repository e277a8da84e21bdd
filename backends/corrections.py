"""What is added to the logits of drawn tokens, computed where the selection and the norms lie."""

import ctypes
import struct
from pathlib import Path

import torch
from torch import Tensor

from memory_tiers.native import Entry, load_entry
from memory_tiers.summary_store import SEGMENT, Segments
from sparse_algos.hashed import Chance
from sparse_algos.selection import Selection

SOURCE = Path(__file__).with_name("corrections.cpp")
ARGUMENTS = (ctypes.c_char_p,)
# As `Corrections` in corrections.cpp.
BLOCK = struct.Struct("=10Q10qd")
# Below this, waking a second thread takes longer than the logarithms.
DRAWS_PER_THREAD = 1 << 14


def corrections(
    chance: Chance,
    selection: Selection,
    norms: Segments,
    inner_NG: Tensor,
    norm_NG: Tensor,
    product_GV: Tensor,
    first: int,
) -> Tensor | None:
    """Bias of V slots, of which `first` valid columns lie before, float32 [G, V].

    product_GV: of the queries with the keys; the rest as in `Drawn`. None where there is no
    compiler, or no CPU to run what it makes.
    """
    if not product_GV.is_cpu or (entry := compiled_corrections()) is None:
        return None
    pool, directory_RW = norms.pool_NCE, norms.directory_RW
    chosen_NC, valid_NC = selection.partitions_RC, selection.valid_RC
    bias_NGC, drawn_NGC = selection.bias_RGC, selection.drawn_RGC
    assert valid_NC is not None and bias_NGC is not None and drawn_NGC is not None
    assert pool.is_contiguous() and pool.shape[1] == SEGMENT and pool.numel() == len(pool) * SEGMENT
    rows, group, columns = drawn_NGC.shape
    assert len(directory_RW) == len(chosen_NC) == rows and len(product_GV) == group
    assert inner_NG.shape == norm_NG.shape == (rows, group)
    floats = (bias_NGC, pool, inner_NG, norm_NG, product_GV)
    assert all(one.dtype == torch.float32 for one in floats)
    assert chosen_NC.dtype == directory_RW.dtype == torch.int64
    bias_GV = torch.empty_like(product_GV, memory_format=torch.contiguous_format)
    taken = (chosen_NC, valid_NC, drawn_NGC, bias_NGC, pool, directory_RW)
    # They must live until the call is over.
    tensors = [one.contiguous() for one in (*taken, inner_NG, norm_NG, product_GV, bias_GV)]
    block = BLOCK.pack(
        *(one.data_ptr() for one in tensors),
        *(rows, group, columns, directory_RW.shape[1], len(pool), first, product_GV.shape[1]),
        *(chance.tables, chance.bits),
        max(1, min(torch.get_num_threads(), product_GV.numel() // DRAWS_PER_THREAD)),
        chance.least,
    )
    assert not entry(block), f"{product_GV.shape[1]} products, or norms, are not those of the draw"
    return bias_GV


def compiled_corrections() -> Entry | None:
    """The pass in C++; None where there is no compiler, and torch corrects instead."""
    return load_entry(SOURCE, "corrections", ARGUMENTS)
