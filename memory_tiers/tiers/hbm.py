"""Memory of the accelerator; without one, an arena of host memory stands in for it."""

from memory_tiers.base import KVGeometry
from memory_tiers.tiers.arena import Arena


class Hbm(Arena):
    """The tier that attention reads."""

    def __init__(self, name: str, num_frames: int, geometry: KVGeometry) -> None:
        """Frames on the device of the model."""
        super().__init__(name, num_frames, geometry, geometry.device)
