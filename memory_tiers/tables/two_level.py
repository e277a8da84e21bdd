"""Where pages are, in two levels: a static directory of groups, and cells for pages that are here.

SPIN's metadata (arXiv:2604.26837, section 5): its size follows the working set, not the context.
"""

import torch
from torch import Tensor

from memory_tiers.base import FrameTable, TableView
from memory_tiers.native import UnavailableError
from memory_tiers.tables.slabs import Slabs
from memory_tiers.tables.slabs_cpp import CompiledSlabs


class TwoLevel(FrameTable):
    """Groups of 64 pages over slabs of cells; compiled on a CPU that has a compiler, else torch."""

    def __init__(self, num_pages: int, device: torch.device, *, compiled: bool = True) -> None:
        """No page is anywhere yet; compiled: False keeps to torch."""
        self.device = device
        self._slabs = _slabs(num_pages, device, compiled)

    @property
    def kernel(self) -> str:
        """What does the work: `cpu-cpp` or `torch`."""
        return self._slabs.kernel

    def frames(self, pages_N: Tensor) -> Tensor:
        """See FrameTable."""
        return self._slabs.frames(pages_N)

    def place(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """See FrameTable."""
        self._slabs.place(pages_N, frames_N)

    def remove(self, pages_N: Tensor) -> None:
        """See FrameTable."""
        self._slabs.remove(pages_N)

    def view(self) -> TableView:
        """See FrameTable."""
        return self._slabs.view()

    def num_bytes(self) -> dict[str, int]:
        """See FrameTable: `directory`, `segments` in use, and what is `reserved` beyond them."""
        return self._slabs.num_bytes()


def _slabs(num_pages: int, device: torch.device, compiled: bool) -> Slabs:
    if compiled and device.type == "cpu":
        try:
            return CompiledSlabs(num_pages, device)
        except UnavailableError:
            pass
    return Slabs(num_pages, device)
