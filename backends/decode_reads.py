"""What decoding read of each request's KV, added up when nobody waits for it."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from backends.base import KVRead
from memory_tiers.base import KVGeometry, PageSelection


class _Note(NamedTuple):
    """Of one layer in one step; ends_B1: where the pages of each member begin and end."""

    members: tuple[str, ...]
    ends_B1: Tensor


class _Ended(NamedTuple):
    uid: str
    num_prompt: int
    num_answer: int


class DecodeReads:
    """Pages that decode rows read, by request.

    A step notes where each member's pages begin; of one member, how many there were. Sums wait
    until they are asked for. members: of the decode batch of this step, by uid; without them
    nothing is noted.
    """

    def __init__(self, geometry: KVGeometry, windows: Sequence[int | None]) -> None:
        """windows: by layer, the tokens in sight where dense attention does not see all."""
        self.members: tuple[str, ...] = ()
        self._geometry = geometry
        self._windows = Counter(windows)
        self._notes: list[_Note] = []
        self._pages: Counter[str] = Counter()
        self._ended: list[_Ended] = []

    def note(self, pages: PageSelection) -> None:
        """The pages of one layer, rows of a member next to each other."""
        if not self.members:
            return
        if len(self.members) == 1:
            self._pages[self.members[0]] += pages.pages_N.numel()
        else:
            # Kernels take the same room again in their next step.
            ends_B1 = pages.indptr_R1[:: self._geometry.num_kv_heads].clone()
            self._notes.append(_Note(self.members, ends_B1))

    def end(self, uid: str, num_prompt: int, num_answer: int) -> None:
        """A request is over; its first token was no decode row's."""
        self._ended.append(_Ended(uid, num_prompt, num_answer))

    def take(self) -> dict[str, KVRead]:
        """Of the requests that ended since the last call, by uid."""
        for members, notes in groupby(self._notes, lambda note: note.members):
            counts_B = torch.stack([note.ends_B1 for note in notes]).diff(dim=1).sum(dim=0)
            self._pages.update(dict(zip(members, counts_B.tolist(), strict=True)))
        self._notes.clear()
        ended, self._ended = self._ended, []
        return {one.uid: KVRead(self._pages.pop(one.uid, 0), self._dense(one)) for one in ended}

    def _dense(self, one: _Ended) -> int:
        """Pages that dense attention reads in the same steps."""
        size, pages = self._geometry.page_tokens, 0
        for seen in range(one.num_prompt + 1, one.num_prompt + one.num_answer):
            for window, num_layers in self._windows.items():
                first = 0 if window is None else max(0, seen - window) // size
                pages += num_layers * (-(-seen // size) - first)
        return pages * self._geometry.num_kv_heads
