"""Pages that were given up lately: a bounded list by page id, without a table over all pages."""

import torch
from torch import Tensor

from memory_tiers.base import NOWHERE

GOLDEN = -7046029254386353131
SLOTS_PER_GHOST = 8


class Ghosts:
    """The last pages that went, at most `capacity` of them, oldest first.

    They lie in a buffer in order of arrival; a table of slots, by a hash of the page id, finds
    them. Of two pages with one hash the older is lost: about one in sixteen of a full list, none
    of few pages whose ids follow one another.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        """An empty list."""
        self._capacity = capacity
        self._page_G = torch.full((2 * capacity,), NOWHERE, device=device)
        self._bits = max(SLOTS_PER_GHOST * capacity - 1, 1023).bit_length()
        self._slot_H = torch.zeros(1 << self._bits, dtype=torch.int32, device=device)
        self._begin = self._end = self._length = 0

    def __len__(self) -> int:
        """Pages that are remembered."""
        return self._length

    def add(self, pages_N: Tensor) -> None:
        """Remember pages, oldest first; the oldest of all give way."""
        pages_N = pages_N[-self._capacity :]
        if self._end + pages_N.numel() > self._page_G.numel():
            self._compact()
        self._append(pages_N)
        self.trim(self._capacity)

    def take(self, pages_N: Tensor) -> Tensor:
        """Which of these pages are remembered, bool [N]; those no longer are."""
        slot_N = self._slot_H[self._hash(pages_N)]
        found_N = self._page_G[slot_N] == pages_N
        self._page_G[slot_N[found_N]] = NOWHERE
        self._length -= int(found_N.sum())
        return found_N

    def trim(self, length: int) -> None:
        """Keep no more than the newest `length`."""
        excess = self._length - length
        if excess <= 0:
            return
        reach = excess
        while (kept_G := self._kept(self._begin + reach)).numel() < excess:
            reach *= 2
        begin = self._begin + int(kept_G[excess - 1]) + 1
        self._page_G[self._begin : begin] = NOWHERE
        self._begin, self._length = begin, length

    def _kept(self, end: int) -> Tensor:
        """Places of pages from the first on, relative to it, int64."""
        return (self._page_G[self._begin : end] != NOWHERE).nonzero().squeeze(1)

    def _append(self, pages_N: Tensor) -> None:
        end = self._end + pages_N.numel()
        self._page_G[self._end : end] = pages_N
        self._slot_H[self._hash(pages_N)] = torch.arange(
            self._end, end, dtype=torch.int32, device=pages_N.device
        )
        self._end, self._length = end, self._length + pages_N.numel()

    def _compact(self) -> None:
        pages_N = self._page_G[self._begin + self._kept(self._end)]
        self._page_G.fill_(NOWHERE)
        self._begin = self._end = self._length = 0
        self._append(pages_N)

    def _hash(self, pages_N: Tensor) -> Tensor:
        return (pages_N * GOLDEN) >> (64 - self._bits) & ((1 << self._bits) - 1)
