"""An arena of frames on one kind of memory, and a stack of the free ones."""

import mmap

import torch
from torch import Tensor

from memory_tiers.base import KVGeometry


class Arena:
    """Frames of one tier, allocated by the batch: pool_FPSD [F, 2, S, D], keys then values."""

    def __init__(
        self, name: str, num_frames: int, geometry: KVGeometry, device: torch.device
    ) -> None:
        """Reserve the memory; pages of it become real when they are written."""
        self.name = name
        self.num_frames = num_frames
        self.frame_bytes = geometry.page_bytes
        shape = (num_frames, 2, geometry.page_tokens, geometry.head_dim)
        try:
            self.pool_FPSD = _empty(shape, geometry.dtype, device)
        except OSError as error:
            asked = num_frames * geometry.page_bytes
            raise MemoryError(f"tier.{name}.size asks for {asked} bytes: {error}") from error
        # Descending, so that frames come off the top in ascending runs: sequential reads.
        self._free_F = torch.arange(num_frames - 1, -1, -1, device=geometry.device)
        self._num_free = num_frames
        self.peak_frames = 0

    @property
    def num_free(self) -> int:
        """Frames that hold nothing."""
        return self._num_free

    @property
    def peak_bytes(self) -> int:
        """Most bytes that pages took at one time."""
        return self.peak_frames * self.frame_bytes

    def allocate(self, count: int) -> Tensor:
        """Take `count` free frames, int64 [count], ascending where the stack is untouched."""
        assert count <= self._num_free, f"{self.name} has {self._num_free} free, asked {count}"
        self._num_free -= count
        self.peak_frames = max(self.peak_frames, self.num_frames - self._num_free)
        return self._free_F[self._num_free : self._num_free + count].flip(0)

    def free(self, frames_N: Tensor) -> None:
        """Give frames back."""
        count = frames_N.numel()
        self._free_F[self._num_free : self._num_free + count] = frames_N.flip(0)
        self._num_free += count
        assert self._num_free <= self.num_frames, f"{self.name}: a frame was freed twice"


def _empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    count = torch.Size(shape).numel()
    if device.type != "cpu" or count == 0:
        return torch.empty(shape, dtype=dtype, device=device)
    # Private and huge: shared maps get no 2 MiB pages, and random page reads need them.
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)
