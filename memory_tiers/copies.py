"""The only code that moves pages between tiers; it counts every byte by tier pair."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from memory_tiers.counters import Counters
from memory_tiers.native import Entry, load_entry
from memory_tiers.tiers.base import DamagedPagesError, Tier

SOURCE = Path(__file__).with_name("copies.cpp")
ARGUMENTS = (*[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 4, ctypes.c_int)
# Below this, waking a second thread takes longer than the copy.
BYTES_PER_THREAD = 1 << 20


def copy_values(
    source: Tier, from_N: Tensor, target: Tier, to_N: Tensor, counters: Counters
) -> None:
    """What `copy_pages` does for tiers in memory, but for the values alone."""
    if from_N.numel() == 0:
        return
    assert source.pool_FPSD is not None and target.pool_FPSD is not None
    # As a pool of twice as many frames: each page's keys, then its values.
    halves = (pool.flatten(0, 1).unsqueeze(1) for pool in (source.pool_FPSD, target.pool_FPSD))
    source_FPSD, target_FPSD = halves
    copy_frames(source_FPSD, 2 * from_N + 1, target_FPSD, 2 * to_N + 1)
    moved = from_N.numel() * source.frame_bytes // 2
    counters.current.bytes_moved[f"{source.name}->{target.name}"] += moved


def copy_pages(
    source: Tier, from_N: Tensor, target: Tier, to_N: Tensor, counters: Counters
) -> None:
    """Copy the contents of frames `from_N` of one tier to frames `to_N` of another.

    The frames of the target are distinct. Raises DamagedPagesError, with frames of the source,
    when every page that is whole has been copied; those alone are counted.
    """
    whole = from_N.numel()
    if whole == 0:
        return
    try:
        _move(source, from_N, target, to_N)
    except DamagedPagesError as error:
        whole -= error.frames_N.numel()
        raise
    finally:
        moved = whole * source.frame_bytes
        counters.current.bytes_moved[f"{source.name}->{target.name}"] += moved


def _move(source: Tier, from_N: Tensor, target: Tier, to_N: Tensor) -> None:
    if target.pool_FPSD is not None:
        source.read_into(from_N, target.pool_FPSD, to_N)
    elif source.pool_FPSD is not None:
        target.write_from(to_N, source.pool_FPSD, from_N)
    else:
        target.write(to_N, source.read(from_N))


def copy_frames(source_FPSD: Tensor, from_N: Tensor, target_FPSD: Tensor, to_N: Tensor) -> None:
    """Copy frames of one pool to other frames, each named once, of another: any devices."""
    entry = compiled_copy()
    if entry is None or not source_FPSD.is_cpu or not target_FPSD.is_cpu:
        copy_frames_by_torch(source_FPSD, from_N, target_FPSD, to_N)
        return
    assert source_FPSD.shape[1:] == target_FPSD.shape[1:] and from_N.shape == to_N.shape
    assert source_FPSD.dtype == target_FPSD.dtype and from_N.dtype == to_N.dtype == torch.int64
    assert source_FPSD.is_contiguous() and target_FPSD.is_contiguous()
    from_N, to_N = from_N.cpu().contiguous(), to_N.cpu().contiguous()
    num_frames, frame_bytes = len(from_N), source_FPSD.stride(0) * source_FPSD.itemsize
    refused = entry(
        source_FPSD.data_ptr(),
        from_N.data_ptr(),
        target_FPSD.data_ptr(),
        to_N.data_ptr(),
        num_frames,
        frame_bytes,
        len(source_FPSD),
        len(target_FPSD),
        max(1, min(torch.get_num_threads(), num_frames * frame_bytes // BYTES_PER_THREAD)),
    )
    assert not refused, f"a copy points outside of {len(source_FPSD)} or {len(target_FPSD)} frames"


def copy_frames_by_torch(
    source_FPSD: Tensor, from_N: Tensor, target_FPSD: Tensor, to_N: Tensor
) -> None:
    """What `copy_frames` does, in plain torch: the oracle, and the way from device to device."""
    staged = source_FPSD.index_select(0, from_N.to(source_FPSD.device))
    target_FPSD.index_copy_(0, to_N.to(target_FPSD.device), staged.to(target_FPSD.device))


def compiled_copy() -> Entry | None:
    """The copy in C++; None where there is no compiler, and torch copies instead."""
    return load_entry(SOURCE, "copy_frames", ARGUMENTS)
