"""Host memory below the accelerator."""

import torch

from memory_tiers.base import KVGeometry
from memory_tiers.tiers.arena import Arena


class HostMemory(Arena):
    """Holds every page that was written back."""

    def __init__(self, name: str, num_frames: int, geometry: KVGeometry) -> None:
        """Frames in host memory."""
        super().__init__(name, num_frames, geometry, torch.device("cpu"))
