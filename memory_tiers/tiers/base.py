"""What a tier is: frames for pages on one kind of memory, and a stack of the free ones."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from memory_tiers.base import KVGeometry


class DamagedPagesError(ValueError):
    """Pages cannot be read back as they were written; the others of the batch are in place.

    frames_N: int64, the frames of the damaged pages, on the host.
    """

    def __init__(self, message: str, frames_N: Tensor) -> None:
        """Say it in one line, and name the frames."""
        super().__init__(message)
        self.frames_N = frames_N


class Tier(ABC):
    """Frames of one tier, allocated by the batch.

    name, num_frames, frame_bytes: as configured. peak_frames: most frames in use at one time.
    pool_FPSD: the frames as they lie in memory, [F, 2, S, D], keys then values; None for a tier
    that no kernel can read.
    """

    pool_FPSD: Tensor | None = None

    @classmethod  # noqa: B027
    def check(cls, name: str, num_bytes: int, device: torch.device, **settings: Any) -> None:
        """Refuse with a ValueError what a tier of so many bytes could not serve; takes nothing.

        device: of the model; settings: those of the constructor.
        """

    @property
    def facts(self) -> dict[str, Any]:
        """What was really set up, for the record."""
        return {}

    def __init__(self, name: str, num_frames: int, geometry: KVGeometry) -> None:
        """All frames are free; their ids live on the device of the model."""
        self.name = name
        self.num_frames = num_frames
        self.frame_bytes = geometry.page_bytes
        self.peak_frames = 0
        self._content_PSD = (2, geometry.page_tokens, geometry.head_dim)
        self._dtype = geometry.dtype
        # Descending, so that frames come off the top in ascending runs: sequential reads.
        self._free_F = torch.arange(num_frames - 1, -1, -1, device=geometry.device)
        self._num_free = num_frames

    @property
    def num_free(self) -> int:
        """Frames that hold nothing."""
        return self._num_free

    @property
    def peak_bytes(self) -> int:
        """Most bytes that pages took at one time."""
        return self.peak_frames * self.frame_bytes

    def allocate(self, count: int) -> Tensor:
        """Take `count` free frames, int64 [count], in ascending runs: one run while none came back.

        What was freed last goes first.
        """
        assert count <= self._num_free, f"{self.name} has {self._num_free} free, asked {count}"
        self._num_free -= count
        self.peak_frames = max(self.peak_frames, self.num_frames - self._num_free)
        return self._free_F[self._num_free : self._num_free + count].flip(0)

    def free(self, frames_N: Tensor) -> None:
        """Give frames back."""
        count = frames_N.numel()
        self._free_F[self._num_free : self._num_free + count] = frames_N.sort(
            descending=True
        ).values
        self._num_free += count
        assert self._num_free <= self.num_frames, f"{self.name}: a frame was freed twice"

    def read(self, frames_N: Tensor) -> Tensor:
        """Contents of frames, [N, 2, S, D] on the host; a frame never written holds anything.

        Raises DamagedPagesError, as `read_into`.
        """
        content_NPSD = self.host_empty(frames_N.numel())
        self.read_into(frames_N, content_NPSD, torch.arange(frames_N.numel()))
        return content_NPSD

    def write(self, frames_N: Tensor, content_NPSD: Tensor) -> None:
        """Set the contents of frames, each named once; raises as `write_from`."""
        self.write_from(frames_N, content_NPSD, torch.arange(frames_N.numel()))

    @abstractmethod
    def read_into(self, frames_N: Tensor, pool_FPSD: Tensor, to_N: Tensor) -> None:
        """Copy contents of frames to frames of a pool, each of those named once.

        Raises DamagedPagesError when all that can be read is in place.
        """

    @abstractmethod
    def write_from(self, frames_N: Tensor, pool_FPSD: Tensor, from_N: Tensor) -> None:
        """Set the contents of frames, each named once, to those of frames of a pool."""

    @abstractmethod
    def close(self) -> None:
        """Give back memory or disk; the frames are gone."""

    def host_empty(self, count: int) -> Tensor:
        """Room for the contents of `count` frames on the host, [count, 2, S, D]."""
        return torch.empty((count, *self._content_PSD), dtype=self._dtype)
