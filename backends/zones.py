"""The zones of retrievers over clusters in compiled passes: what is read, what is estimated."""

import struct
from ctypes import c_char_p, c_int, create_string_buffer
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.native import Entry, load_entry
from memory_tiers.summary_store import Segments
from sparse_algos.clustered import ClusterRetriever
from sparse_algos.index_data import Estimate
from sparse_algos.selection import Selection, Visible

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "zones.cpp"
HEADERS = tuple(FOLDER / "attention" / name for name in ("best.h", "choose.h", "vector.h"))
# As `Choice` and `Rest` in zones.cpp.
CHOICE = struct.Struct("=6Q7qd2q")
WIDTHS = struct.Struct("=2q")
REST = struct.Struct("=7Q8qd")
REDUCES = {"max": 0, "mean": 1, "mass": 2, "peak": 3}
# Below these, waking a second thread takes longer than the work.
SCORES_PER_THREAD = 1 << 17
BYTES_PER_THREAD = 1 << 20


class Entries(NamedTuple):
    """The two passes, by the size of a head."""

    choose: Entry
    estimate: Entry


def choose(
    retrieve: ClusterRetriever, scores_RGP: Tensor, visible: Visible, head_dim: int
) -> Selection | None:
    """The same as `retrieve.select`; equal scores prefer the lower cluster.

    None where there is no compiler, or no CPU to run what it makes.
    """
    if not scores_RGP.is_cpu or (entries := compiled_zones(head_dim)) is None:
        return None
    assert visible.clusters is not None and scores_RGP.dtype == torch.float32
    sizes_RP = visible.clusters.sizes_RP.contiguous()
    room = retrieve.room(visible)
    rows, group, most = scores_RGP.shape
    columns = max(0, min(most, int(room.tokens_R.amax())))
    more = ceil(most * retrieve.estimated_share)
    chosen_RC = torch.empty(rows, columns, dtype=torch.int64)
    valid_RC = torch.empty(rows, columns, dtype=torch.bool)
    estimated_RE = torch.empty(rows, more, dtype=torch.int64)
    assert sizes_RP.shape == (rows, most) and sizes_RP.dtype == room.tokens_R.dtype == torch.int64
    # They must live until the call is over.
    tensors = [scores_RGP.contiguous(), sizes_RP, room.tokens_R.contiguous()]
    tensors += [chosen_RC, valid_RC, estimated_RE]
    block = create_string_buffer(
        CHOICE.pack(
            *(one.data_ptr() for one in tensors),
            *(rows, group, most, columns, more, REDUCES[retrieve.group_reduce]),
            _threads(scores_RGP.numel(), SCORES_PER_THREAD),
            *(retrieve.estimated_share, 0, 0),
        ),
        CHOICE.size,
    )
    entries.choose(block)
    width, used = WIDTHS.unpack_from(block, CHOICE.size - WIDTHS.size)
    return Selection(
        chosen_RC[:, :width],
        valid_RC[:, :width],
        room.steady,
        estimated_RC=estimated_RE[:, :used] if retrieve.estimates else None,
    )


def estimate(
    scores_NGP: Tensor, estimated_NC: Tensor, value: Segments, size_NC1: Tensor, factor: float
) -> Estimate | None:
    """The same as `ClusterRetriever.estimate`, by summaries where they lie.

    value and size_NC1: pools of the summaries of these names, and the segments of the index rows,
    of which several query rows in turn may share one; logits are scores times `factor`. None where
    there is no compiler, or no CPU to run what it makes.
    """
    pool_NCD, directory_RW = value
    if not scores_NGP.is_cpu or (entries := compiled_zones(pool_NCD.shape[2])) is None:
        return None
    rows, group, partitions = scores_NGP.shape
    assert pool_NCD.dtype in (torch.float32, torch.bfloat16) and size_NC1.dtype == torch.float32
    assert pool_NCD.is_contiguous() and size_NC1.is_contiguous()
    assert len(pool_NCD) == len(size_NC1) and rows % len(directory_RW) == 0
    assert directory_RW.dtype == estimated_NC.dtype == torch.int64 and len(estimated_NC) == rows
    out_NGD = torch.empty(rows, group, pool_NCD.shape[2])
    lse_NG = torch.empty(rows, group)
    taken = (scores_NGP, estimated_NC, pool_NCD, size_NC1, directory_RW, out_NGD, lse_NG)
    # They must live until the call is over.
    tensors = [one.contiguous() for one in taken]
    num_bytes = estimated_NC.numel() * pool_NCD.shape[2] * pool_NCD.itemsize
    block = REST.pack(
        *(one.data_ptr() for one in tensors),
        *(rows, group, partitions, estimated_NC.shape[1], directory_RW.shape[1], len(pool_NCD)),
        *(rows // len(directory_RW), _threads(num_bytes, BYTES_PER_THREAD), factor),
    )
    refused = entries.estimate(block, pool_NCD.dtype == torch.bfloat16)
    assert not refused, f"a cluster lies outside the pool of {len(pool_NCD)} segments"
    return Estimate(out_NGD, lse_NG)


def compiled_zones(head_dim: int) -> Entries | None:
    """The passes in C++; None where there is no compiler, or torch serves such heads instead."""
    if head_dim % 16 or not 16 <= head_dim <= 256:
        return None
    defines = (f"-DHEAD_DIM={head_dim}",)
    choosing = load_entry(SOURCE, "choose", (c_char_p,), HEADERS, defines)
    estimating = load_entry(SOURCE, "estimate", (c_char_p, c_int), HEADERS, defines)
    return None if choosing is None or estimating is None else Entries(choosing, estimating)


def _threads(work: int, per_thread: int) -> int:
    return max(1, min(torch.get_num_threads(), work // per_thread))
