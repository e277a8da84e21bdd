"""The two-level table in C++ for CPUs, built by the compiler at hand and called through ctypes."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from memory_tiers.native import load_library
from memory_tiers.tables.slabs import GROUP, NUM_CLASSES, Slabs

SOURCES = (Path(__file__).with_name("slabs.cpp"),)


class _Slabs(ctypes.Structure):
    """Cells dealt and used, and the first free slab of each capacity."""

    _fields_ = (
        ("dealt", ctypes.c_int64),
        ("used", ctypes.c_int64),
        ("free", ctypes.c_int32 * NUM_CLASSES),
    )


class _Table(ctypes.Structure):
    """Where the table lies."""

    _fields_ = (
        ("bits", ctypes.c_void_p),
        ("base", ctypes.c_void_p),
        ("cells", ctypes.c_void_p),
        ("num_groups", ctypes.c_int64),
        ("num_cells", ctypes.c_int64),
        ("slabs", ctypes.POINTER(_Slabs)),
    )


class CompiledSlabs(Slabs):
    """See Slabs: one pass over the pages; a group that follows itself is rewritten once."""

    kernel = "cpu-cpp"

    def __init__(self, num_pages: int, device: torch.device) -> None:
        """Build the code, or load it from the cache; raises UnavailableError."""
        library = load_library("slabs", SOURCES, ())
        super().__init__(num_pages, device)
        self._lookup = _entry(library, "frames", 2)
        self._insert = _entry(library, "place", 2)
        self._delete = _entry(library, "remove_pages", 1)
        self._room = _Slabs()
        self._table = _Table()
        self._forget_free()
        self._point()

    def frames(self, pages_N: Tensor) -> Tensor:
        """See FrameTable."""
        pages_N = _as_int64(pages_N)
        frames_N = torch.empty_like(pages_N)
        outside = self._lookup(self._at, pages_N.data_ptr(), pages_N.numel(), frames_N.data_ptr())
        assert not outside, f"{outside} pages lie outside the directory"
        return frames_N

    def place(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """See FrameTable."""
        pages_N, frames_N = _as_int64(pages_N), _as_int64(frames_N)
        assert pages_N.shape == frames_N.shape
        num_done, num_pages = 0, pages_N.numel()
        while True:
            left, at = num_pages - num_done, num_done * pages_N.itemsize
            done = self._insert(self._at, pages_N.data_ptr() + at, left, frames_N.data_ptr() + at)
            self._read_room()
            assert done >= 0, f"page {pages_N[num_done + ~done]} is here already, or outside"
            num_done += done
            if num_done == num_pages:
                return
            self._grow(GROUP)
            self._point()

    def remove(self, pages_N: Tensor) -> None:
        """See FrameTable."""
        pages_N = _as_int64(pages_N)
        done = self._delete(self._at, pages_N.data_ptr(), pages_N.numel())
        self._read_room()
        assert done >= 0, f"page {pages_N[~done]} is not here, or outside"

    def _read_room(self) -> None:
        self._num_dealt, self._num_used = self._room.dealt, self._room.used

    def _point(self) -> None:
        """Tell the compiled code where everything is now."""
        self._room.dealt, self._room.used = self._num_dealt, self._num_used
        table = self._table
        table.bits, table.base = self._bits_G.data_ptr(), self._base_G.data_ptr()
        table.cells = self._cells_C.data_ptr()
        table.num_groups, table.num_cells = len(self._bits_G), len(self._cells_C)
        table.slabs = ctypes.pointer(self._room)
        self._at = ctypes.addressof(table)

    def _forget_free(self) -> None:
        super()._forget_free()
        self._room.free[:] = [-1] * NUM_CLASSES


def _as_int64(tensor: Tensor) -> Tensor:
    return tensor.to(torch.int64).contiguous()


def _entry(library: ctypes.CDLL, name: str, num_tensors: int) -> "ctypes._NamedFuncPointer":
    """An entry point of (table, pages, their number[, another tensor])."""
    entry = library[name]
    pointers = [ctypes.c_void_p] * (num_tensors - 1)
    entry.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, *pointers]
    entry.restype = ctypes.c_int64
    return entry
