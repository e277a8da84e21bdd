"""An arena of frames on one kind of memory that kernels read in place."""

import mmap

import torch
from torch import Tensor

from memory_tiers.base import KVGeometry
from memory_tiers.copies import copy_frames
from memory_tiers.tiers.base import Tier


class Arena(Tier):
    """Frames of one tier as one tensor."""

    pool_FPSD: Tensor

    def __init__(
        self, name: str, num_frames: int, geometry: KVGeometry, device: torch.device
    ) -> None:
        """Reserve the memory; pages of it become real when they are written."""
        super().__init__(name, num_frames, geometry)
        try:
            self.pool_FPSD = _empty((num_frames, *self._content_PSD), geometry.dtype, device)
        except OSError as error:
            asked = num_frames * geometry.page_bytes
            raise MemoryError(f"tier.{name}.size asks for {asked} bytes: {error}") from error

    def read_into(self, frames_N: Tensor, pool_FPSD: Tensor, to_N: Tensor) -> None:
        """See Tier; nothing is ever damaged."""
        copy_frames(self.pool_FPSD, frames_N, pool_FPSD, to_N)

    def write_from(self, frames_N: Tensor, pool_FPSD: Tensor, from_N: Tensor) -> None:
        """See Tier."""
        copy_frames(pool_FPSD, from_N, self.pool_FPSD, frames_N)

    def close(self) -> None:
        """See Tier; the memory goes with the last view of it."""
        self.pool_FPSD = self.pool_FPSD[:0]


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    count = torch.Size(shape).numel()
    if device.type != "cpu" or count == 0:
        return torch.empty(shape, dtype=dtype, device=device)
    # Private and huge: shared maps get no 2 MiB pages, and random page reads need them.
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)
