"""Host memory below the accelerator."""

import weakref
from typing import Any

import torch

from memory_tiers.base import KVGeometry
from memory_tiers.tiers.arena import Arena


class HostMemory(Arena):
    """Every page that was written back; pinned where the accelerator is a CUDA device.

    pinned: whether the frames are page-locked, so that the device copies them at full speed.
    """

    def __init__(self, name: str, num_frames: int, geometry: KVGeometry) -> None:
        """Frames in host memory; raises MemoryError when they cannot be had or pinned."""
        super().__init__(name, num_frames, geometry, torch.device("cpu"))
        self.pinned = geometry.device.type == "cuda" and num_frames > 0
        if self.pinned:
            self._pin()

    @property
    def facts(self) -> dict[str, Any]:
        """See Tier."""
        return {"pinned": self.pinned}

    def close(self) -> None:
        """See Tier."""
        if self.pinned:
            self._unpin()
        super().close()

    def _pin(self) -> None:
        """Register the arena: torch's own pinned memory has no huge pages, and rounds sizes up."""
        address, size = self.pool_FPSD.data_ptr(), self.pool_FPSD.nbytes
        cudart = torch.cuda.cudart()
        refused = cudart.cudaHostRegister(address, size, 0)
        if refused != cudart.cudaError.success:
            raise MemoryError(
                f"tier.{self.name}.size asks for {size} bytes of pinned memory: {refused}; lower it"
            )
        self._unpin = weakref.finalize(self, cudart.cudaHostUnregister, address)
