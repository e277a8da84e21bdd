"""Where pages are, the plain way: one cell for every page that could exist."""

import torch
from torch import Tensor

from memory_tiers.base import NOWHERE, FrameTable, TableView


class Flat(FrameTable):
    """Frames by page id, int32, taken for the whole address space at once."""

    def __init__(self, num_pages: int, device: torch.device) -> None:
        """No page is anywhere yet."""
        self.device = device
        self._cells_C = torch.full((num_pages,), NOWHERE, dtype=torch.int32, device=device)

    def frames(self, pages_N: Tensor) -> Tensor:
        """See FrameTable."""
        return self._cells_C[pages_N].long()

    def place(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """See FrameTable."""
        self._cells_C[pages_N] = frames_N.to(torch.int32)

    def remove(self, pages_N: Tensor) -> None:
        """See FrameTable."""
        self._cells_C[pages_N] = NOWHERE

    def view(self) -> TableView:
        """See FrameTable."""
        return TableView(self._cells_C)

    def num_bytes(self) -> dict[str, int]:
        """See FrameTable: all of it is `cells`."""
        return {"cells": self._cells_C.nbytes}
