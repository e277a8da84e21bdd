"""A value per page, kept only for groups of 64 pages that something was written to."""

import torch
from torch import Tensor

from memory_tiers.tables.segments import GROUP, Segments, SegmentsView


class PagedColumn:
    """Values by page id, such as dead bits or steps of last use; `fill` where none was written."""

    def __init__(
        self, num_pages: int, dtype: torch.dtype, fill: int | float, device: torch.device
    ) -> None:
        """Every page has the value `fill`."""
        self._segments = Segments(num_pages, (), fill, dtype, device)

    def read(self, pages_N: Tensor) -> Tensor:
        """The value of each page, of the pages' shape."""
        return self._segments.read(pages_N)

    def write(self, pages_N: Tensor, values_N: Tensor) -> None:
        """Set the values of pages, each named once."""
        self._segments.write(pages_N, values_N)

    def reserve(self, pages_N: Tensor) -> None:
        """Make sure that these pages have a place."""
        self._segments.reserve(pages_N)

    def release(self, pages_N: Tensor) -> None:
        """Give back the memory of whole groups; their pages have the value `fill` again.

        pages_N names every page of each group, a group's pages side by side in ascending order, as
        those of a sequence are whose rows hold a multiple of 64 pages.
        """
        assert pages_N.numel() % GROUP == 0, f"{pages_N.numel()} pages are no whole groups"
        first_U = pages_N.view(-1, GROUP)[:, 0]
        assert not (first_U & (GROUP - 1)).any(), "these pages are no whole groups"
        self._segments.release(first_U >> 6)

    def view(self) -> SegmentsView:
        """The column as it lies in memory, for compiled code; valid until the next update."""
        return self._segments.view()

    def num_bytes(self) -> dict[str, int]:
        """Bytes allocated now: `directory`, `segments` in use, and `reserved` beyond them."""
        return self._segments.num_bytes()
