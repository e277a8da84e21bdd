"""A file on disk below host memory: one per engine, checked page by page."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from memory_tiers.base import KVGeometry
from memory_tiers.copies import copy_frames
from memory_tiers.native import UnavailableError
from memory_tiers.tiers.base import DamagedPagesError, Tier
from memory_tiers.tiers.disk_file import ALIGNMENT, Direct, DiskFile
from memory_tiers.tiers.disk_requests import (
    CompiledRequests,
    PythonRequests,
    Requests,
    aligned_empty,
    batch_of,
)

# More threads than this only wait for each other.
MOST_IN_FLIGHT = 256


class Disk(Tier):
    """Frames of a preallocated file; every read is compared with a checksum kept in memory.

    direct: whether requests really pass the page cache by; implementation: cpp or python;
    in_flight: requests at one time.
    """

    def __init__(
        self,
        name: str,
        num_frames: int,
        geometry: KVGeometry,
        *,
        path: str,
        direct: Direct,
        in_flight: int,
    ) -> None:
        """Reserve the file in the folder `path`.

        Raises OutOfDiskError where it has no room, and ValueError for what is not possible there.
        """
        super().__init__(name, num_frames, geometry)
        _check(name, direct, in_flight)
        self._path = path
        self._file = DiskFile(f"tier.{name}", Path(path), num_frames, self.frame_bytes, direct)
        self.direct = self._file.direct
        self.in_flight = in_flight
        self._requests = _requests(self._file.fd, num_frames, self.frame_bytes, in_flight)
        self.implementation = self._requests.name

    @classmethod
    def check(cls, name: str, num_bytes: int, device: torch.device, **settings: Any) -> None:
        """See Tier: whether the folder's disk has room, and whether the settings make sense."""
        _check(name, settings["direct"], settings["in_flight"])
        folder = Path(settings["path"]).absolute()
        while not folder.exists():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        if num_bytes > free:
            raise ValueError(
                f"tier.{name}.size asks for {num_bytes} bytes in {settings['path']!r}, over all "
                f"arms, {free} are free; lower tier.{name}.size or backend.max_batch, or name a "
                f"roomier folder in tier.{name}.path"
            )

    @property
    def facts(self) -> dict[str, Any]:
        """See Tier."""
        return {
            "direct": self.direct,
            "in_flight": self.in_flight,
            "implementation": self.implementation,
        }

    def read_into(self, frames_N: Tensor, pool_FPSD: Tensor, to_N: Tensor) -> None:
        """See Tier."""
        if not self._reaches(pool_FPSD):
            staged_NPSD, order_N = self.host_empty(frames_N.numel()), torch.arange(len(frames_N))
            try:
                self.read_into(frames_N, staged_NPSD, order_N)
            finally:
                copy_frames(staged_NPSD, order_N, pool_FPSD, to_N)
            return
        batch = batch_of(frames_N, to_N, self.frame_bytes)
        failed_N, error = self._requests.read(batch, _as_bytes(pool_FPSD))
        if failed_N.any():
            raise self._damaged(batch.frames_N[failed_N], frames_N.numel(), error)

    def write_from(self, frames_N: Tensor, pool_FPSD: Tensor, from_N: Tensor) -> None:
        """See Tier; raises OutOfDiskError or OSError when all that can be written is.

        What could not be written reads as damaged until it is written again.
        """
        if not self._reaches(pool_FPSD):
            staged_NPSD, order_N = self.host_empty(frames_N.numel()), torch.arange(len(frames_N))
            copy_frames(pool_FPSD, from_N, staged_NPSD, order_N)
            self.write_from(frames_N, staged_NPSD, order_N)
            return
        batch = batch_of(frames_N, from_N, self.frame_bytes)
        failed_N, error = self._requests.write(batch, _as_bytes(pool_FPSD))
        if failed_N.any():
            count = f"{int(failed_N.sum())} of {frames_N.numel()} pages cannot be written"
            raise self._file.refuse(error, count)

    def close(self) -> None:
        """See Tier; the file goes with its descriptor, also when nobody closes it."""
        self._file.close()

    def host_empty(self, count: int) -> Tensor:
        """See Tier; aligned for direct requests."""
        memory_NB = aligned_empty(count, self.frame_bytes)
        return memory_NB.view(self._dtype).view(count, *self._content_PSD)

    def _reaches(self, pool_FPSD: Tensor) -> bool:
        """Whether requests can be served from and to this memory."""
        assert pool_FPSD.shape[1:] == self._content_PSD and pool_FPSD.dtype == self._dtype
        assert pool_FPSD.is_contiguous() and self._file.close.alive, f"{self.name} is closed"
        is_aligned = pool_FPSD.data_ptr() % ALIGNMENT == 0
        return pool_FPSD.is_cpu and (is_aligned or not self.direct)

    def _damaged(self, frames_N: Tensor, num_read: int, error: int) -> DamagedPagesError:
        reason = f" ({os.strerror(error)})" if error else ""
        return DamagedPagesError(
            f"tier.{self.name}.path={self._path!r}: {frames_N.numel()} of {num_read} pages do not "
            f"come back as they were written{reason}; name a folder on a sound disk",
            frames_N,
        )


def _check(name: str, direct: Direct, in_flight: int) -> None:
    if direct != "auto" and not isinstance(direct, bool):
        raise ValueError(f"tier.{name}.direct={direct!r}: choose auto, true or false")
    if isinstance(in_flight, bool) or in_flight not in range(1, MOST_IN_FLIGHT + 1):
        raise ValueError(
            f"tier.{name}.in_flight={in_flight!r}: give 1 to {MOST_IN_FLIGHT} requests"
        )


def _requests(fd: int, num_frames: int, page_bytes: int, in_flight: int) -> Requests:
    try:
        return CompiledRequests(fd, num_frames, page_bytes, in_flight)
    except UnavailableError:
        return PythonRequests(fd, num_frames, page_bytes, in_flight)


def _as_bytes(pool_FPSD: Tensor) -> Tensor:
    return pool_FPSD.flatten(1).view(torch.uint8)
