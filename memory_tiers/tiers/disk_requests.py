"""Pages between a file and memory: runs of frames, several requests at one time, checksums."""

import ctypes
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from memory_tiers.native import load_library
from memory_tiers.tiers.disk_file import ALIGNMENT

SOURCE = Path(__file__).with_name("disk.cpp")
ARGUMENTS: list[Any] = [
    ctypes.c_void_p,
    *[ctypes.c_int] * 2,
    *[ctypes.c_void_p] * 4,
    *[ctypes.c_int64] * 2,
    *[ctypes.c_void_p] * 2,
]
# Small enough that a long run is read by several requests, large enough for full bandwidth.
REQUEST_BYTES = 1 << 18
# What one system call takes; IOV_MAX of Linux.
MOST_PAGES = 1024
KEY_STEP = 0x9E3779B97F4A7C15
SystemCall = Callable[[int, list[memoryview], int], int]


@dataclass(frozen=True)
class Batch:
    """Pages to move between a file and a pool, int64 on the host.

    frames_N: of the file, ascending; places_N: frames of the pool; bounds_Q1: pages bounds[q] to
    bounds[q + 1] are request q, which is a run of frames.
    """

    frames_N: Tensor
    places_N: Tensor
    bounds_Q1: Tensor


class Moved(NamedTuple):
    """What became of a batch: failed_N, bool, and the system's last error, 0 where it had none."""

    failed_N: Tensor
    error: int


def batch_of(frames_N: Tensor, places_N: Tensor, page_bytes: int) -> Batch:
    """Sort pages by their frame in the file, and cut them into requests."""
    most = max(1, min(MOST_PAGES, REQUEST_BYTES // page_bytes))
    frames_N, order_N = frames_N.cpu().sort()
    position_N = torch.arange(frames_N.numel())
    goes_on_N = torch.nn.functional.pad(frames_N.diff() == 1, (1, 0))
    run_start_N = position_N.masked_fill(goes_on_N, 0).cummax(0).values
    starts_Q = ((position_N - run_start_N) % most == 0).nonzero().flatten()
    end = torch.tensor([frames_N.numel()])
    return Batch(frames_N, places_N.cpu()[order_N], torch.cat((starts_Q, end)))


def checksums(pages_NB: Tensor) -> Tensor:
    """64 bits per page of bytes, int64 [N]; they tell damage, not malice."""
    short = -pages_NB.shape[1] % 8
    words_NW = torch.nn.functional.pad(pages_NB, (0, short)).numpy().view(np.uint64)
    key_W = np.arange(1, words_NW.shape[1] + 1, dtype=np.uint64) * np.uint64(KEY_STEP)
    keyed_NW: np.ndarray = words_NW + key_W
    low_NW, high_NW = keyed_NW & np.uint64(0xFFFFFFFF), keyed_NW >> np.uint64(32)
    return torch.from_numpy((low_NW * high_NW + keyed_NW).sum(axis=1).view(np.int64))


def aligned_empty(num_pages: int, page_bytes: int) -> Tensor:
    """Bytes [num_pages, page_bytes] that direct requests can be served from."""
    memory = torch.empty(num_pages * page_bytes + ALIGNMENT, dtype=torch.uint8)
    start = -memory.data_ptr() % ALIGNMENT
    return memory[start : start + num_pages * page_bytes].view(num_pages, page_bytes)


class Requests(ABC):
    """Serves batches on one file; knows the checksum of every frame, int64 [F]."""

    name: str

    def __init__(self, fd: int, num_frames: int, page_bytes: int, in_flight: int) -> None:
        """The file holds zeros; at most `in_flight` requests run at one time."""
        self.fd = fd
        self.page_bytes = page_bytes
        self.in_flight = in_flight
        blank = checksums(torch.zeros(1, page_bytes, dtype=torch.uint8))
        self.checksum_F = blank.repeat(num_frames)

    @abstractmethod
    def read(self, batch: Batch, pool_FB: Tensor) -> Moved:
        """Fill frames of the pool; a page that came short or is not what was written failed."""

    @abstractmethod
    def write(self, batch: Batch, pool_FB: Tensor) -> Moved:
        """Write frames of the pool; a page that failed reads as damaged until written again."""


class CompiledRequests(Requests):
    """Threads in C++, from and to the pool without a copy between."""

    name = "cpp"

    def __init__(self, fd: int, num_frames: int, page_bytes: int, in_flight: int) -> None:
        """Build the code, or load it from the cache; raises UnavailableError."""
        super().__init__(fd, num_frames, page_bytes, in_flight)
        library = load_library("disk", (SOURCE,), ())
        self._entry = library.move_pages
        self._entry.argtypes = ARGUMENTS
        library.open_workers.restype = ctypes.c_void_p
        self._workers = ctypes.c_void_p(library.open_workers(in_flight))
        self.close = weakref.finalize(
            self, _close_here, library.close_workers, self._workers, os.getpid()
        )

    def read(self, batch: Batch, pool_FB: Tensor) -> Moved:
        """See Requests."""
        return self._move(batch, pool_FB, writes=False)

    def write(self, batch: Batch, pool_FB: Tensor) -> Moved:
        """See Requests."""
        return self._move(batch, pool_FB, writes=True)

    def _move(self, batch: Batch, pool_FB: Tensor, *, writes: bool) -> Moved:
        failed_N = torch.zeros(batch.frames_N.numel(), dtype=torch.bool)
        error = self._entry(
            self._workers,
            self.fd,
            writes,
            pool_FB.data_ptr(),
            batch.frames_N.data_ptr(),
            batch.places_N.data_ptr(),
            batch.bounds_Q1.data_ptr(),
            batch.bounds_Q1.numel() - 1,
            self.page_bytes,
            self.checksum_F.data_ptr(),
            failed_N.data_ptr(),
        )
        return Moved(failed_N, error)


def _close_here(close: Callable[[Any], None], workers: Any, owner: int) -> None:
    """End the workers, in the process that started them: a fork has memory of them, no threads."""
    if os.getpid() == owner:
        close(workers)


class PythonRequests(Requests):
    """The same without a compiler: threads over requests, pages staged in the order of the file."""

    name = "python"

    def read(self, batch: Batch, pool_FB: Tensor) -> Moved:
        """See Requests."""
        staged_NB = aligned_empty(batch.frames_N.numel(), self.page_bytes)
        moved = self._serve(os.preadv, batch, staged_NB)
        wrong_N = checksums(staged_NB) != self.checksum_F[batch.frames_N]
        pool_FB.index_copy_(0, batch.places_N, staged_NB)
        return Moved(moved.failed_N | wrong_N, moved.error)

    def write(self, batch: Batch, pool_FB: Tensor) -> Moved:
        """See Requests."""
        staged_NB = aligned_empty(batch.frames_N.numel(), self.page_bytes)
        torch.index_select(pool_FB, 0, batch.places_N, out=staged_NB)
        self.checksum_F[batch.frames_N] = checksums(staged_NB)
        return self._serve(os.pwritev, batch, staged_NB)

    def _serve(self, call: SystemCall, batch: Batch, staged_NB: Tensor) -> Moved:
        frames, bounds = batch.frames_N.tolist(), batch.bounds_Q1.tolist()

        def serve(start: int, stop: int) -> list[tuple[int, int]]:
            """Pages that failed, each with the system's error."""
            offset = frames[start] * self.page_bytes
            error = _move_run(call, self.fd, staged_NB[start:stop], offset)
            if error is None:
                return []
            if stop - start == 1:
                return [(start, error)]
            return [failure for page in range(start, stop) for failure in serve(page, page + 1)]

        with ThreadPoolExecutor(self.in_flight) as threads:
            found = [one for some in threads.map(serve, bounds[:-1], bounds[1:]) for one in some]
        failed_N = torch.zeros(len(frames), dtype=torch.bool)
        failed_N[[page for page, _ in found]] = True
        return Moved(failed_N, max((error for _, error in found), default=0))


def _move_run(call: SystemCall, fd: int, memory_NB: Tensor, offset: int) -> int | None:
    """Move all bytes; the system's error, 0 where it only came short, None where all is well."""
    memory = memory_NB.flatten().numpy().data
    try:
        return None if call(fd, [memory], offset) == len(memory) else 0
    except OSError as error:
        return error.errno
