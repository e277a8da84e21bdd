"""What memory can do here: bare reads in sequence and by pages, and memory laid out for them."""

import ctypes
import mmap
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from memory_tiers.native import load_library

SOURCE = Path(__file__).with_name("yardsticks.cpp")
# Three times the last-level cache of the processors we know.
EVICTING_BYTES = 96 << 20


@lru_cache
def _sweep() -> Callable[..., int]:
    entry = load_library("yardsticks", (SOURCE,), ()).sweep
    entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    return entry


def read_all(tensor: Tensor) -> None:
    """Read a contiguous tensor from its start to its end."""
    _sweep()(tensor.data_ptr(), None, tensor.numel() * tensor.itemsize // 4096, 4096)


def read_run(pool: Tensor, first: int, count: int) -> None:
    """Read `count` units of a pool, one after the other."""
    unit_bytes = pool[0].numel() * pool.itemsize
    _sweep()(pool.data_ptr() + first * unit_bytes, None, count, unit_bytes)


def read_units(pool: Tensor, ids_N: Tensor) -> None:
    """Read the units of a pool that are named, int32, in this order."""
    unit_bytes = pool[0].numel() * pool.itemsize
    _sweep()(pool.data_ptr(), ids_N.data_ptr(), len(ids_N), unit_bytes)


def huge_empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on 2 MiB memory pages, where the system has them to give."""
    count = torch.Size(shape).numel()
    # Private: shared memory gets no huge pages here.
    memory = mmap.mmap(
        -1, max(1, count * dtype.itemsize), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(*shape)


class Evictor:
    """Empties the caches by reading something else."""

    def __init__(self) -> None:
        """Take the memory that will be read."""
        self._other = huge_empty((EVICTING_BYTES,), torch.uint8).fill_(1)

    def __call__(self) -> None:
        """Nothing that was read before is in a cache afterwards."""
        read_all(self._other)
