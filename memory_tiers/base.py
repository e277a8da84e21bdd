"""What the memory knows: pages, frames, tiers and the contracts of its parts; nothing of scores.

A page is the content of S slots, keys and values, of one (layer, row); a row is one (sequence, kv
head). A frame is a place for a page in a tier. A page id is the address of a page in the page
table, `(layer * rows + row) * pages_per_row + index`, whether the page exists or not.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sparse_algos.selection import PartitionKind, Selection

NOWHERE = -1
PAGES_PER_GROUP = 64


class OutOfFramesError(ValueError):
    """A tier is too small for what one step needs; the message names what would fit."""


@dataclass(frozen=True, kw_only=True)
class KVGeometry:
    """Shape of the KV cache: everything that the size of a page depends on."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    page_tokens: int
    dtype: torch.dtype
    device: torch.device

    def __post_init__(self) -> None:
        """A page's live slots are the bits of one int64."""
        if not 1 <= self.page_tokens <= 64:
            raise ValueError(
                f"partition.page_tokens={self.page_tokens} must be between 1 and 64 slots"
            )

    @property
    def token_bytes(self) -> int:
        """Bytes of key and value of one token in one layer and kv head."""
        return 2 * self.head_dim * self.dtype.itemsize

    @property
    def page_bytes(self) -> int:
        """Bytes of one page."""
        return self.page_tokens * self.token_bytes

    def pages_for(self, num_tokens: int) -> int:
        """Pages that hold `num_tokens` of one sequence, over all layers and kv heads."""
        return self.num_layers * self.num_kv_heads * -(-num_tokens // self.page_tokens)


@dataclass(frozen=True)
class Rows:
    """Query rows of one layer, and what of their sequence they see.

    first_page_R: int64 [R], id of page 0 of the row in this layer; num_tokens_R: int64 [R], slots
    0 .. n-1 exist for the row; longest: the largest n, known on the host; first_token_R: int64
    [R] or None, slots before it are out of the row's sight (sliding window).
    """

    first_page_R: Tensor
    num_tokens_R: Tensor
    longest: int
    first_token_R: Tensor | None = None


@dataclass(frozen=True)
class PageSelection:
    """Pages that each row reads, as CSR.

    indptr_R1: int64 [R + 1]; pages_N: int64 [N] page ids; live_N: int64 [N], bit s says that slot
    s counts; wanted: slots that the selection asked for, which the bits may exceed.
    """

    indptr_R1: Tensor
    pages_N: Tensor
    live_N: Tensor
    wanted: int


class SlotRanges(NamedTuple):
    """Slots of each row, counted from its first page on: first .. first + count - 1, int64 [R, C].

    A range of no slots is none.
    """

    first_RC: Tensor
    count_RC: Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How slots are divided: pages of `page_tokens`, partitions of `partition_size`.

    dead_P: by page id, the bits of slots that were evicted for good; None if none were; ranges:
    where the selected partitions lie, for clusters, whose sizes differ.
    """

    page_tokens: int
    partition_size: int
    dead_P: Tensor | None = None
    ranges: SlotRanges | None = None


class PartitionMapper(ABC):
    """Places an algorithm's partitions on pages.

    in_order: partition p of `size` tokens lies in the slots from p * size on, one behind the other,
    so that a kernel can work out the pages by itself; moves: partitions leave the slots of their
    tokens for pages of their own.
    """

    serves: ClassVar[frozenset[PartitionKind]]
    in_order: ClassVar[bool] = False
    moves: ClassVar[bool] = False

    @abstractmethod
    def refusal(self, kind: PartitionKind, partition_size: int, page_tokens: int) -> str | None:
        """Why partitions like these cannot be placed, or None when they can."""

    @abstractmethod
    def to_pages(self, selection: Selection, rows: Rows, layout: Layout) -> PageSelection:
        """Pages that hold the selected partitions, each once per row."""

    def own_pages(self, num_tokens: int, partitions: int, page_tokens: int) -> int:
        """Pages of a row behind those of its tokens, at most: where partitions leave these."""
        return 0

    def waste_pages(self, partitions: int) -> int:
        """Pages of a row that so many partitions cost at most beyond those of its tokens."""
        return 0


class EvictionPolicy(ABC):
    """Remembers the use of frames and names those that may go."""

    @abstractmethod
    def start(self, num_frames: int, device: torch.device) -> None:
        """Forget everything; frames 0 .. num_frames - 1 are empty."""

    @abstractmethod
    def touch(self, frames_N: Tensor, pages_N: Tensor) -> None:
        """These frames, each named once, were filled or read now; they hold these pages.

        Pages let a policy remember what it gave up: a frame tells nothing of its last content.
        """

    @abstractmethod
    def forget(self, frames_N: Tensor) -> None:
        """These frames are empty."""

    @abstractmethod
    def victims(self, count: int, pinned_F: Tensor) -> Tensor:
        """At most `count` filled frames to give up, int64, worst first; never a pinned one."""


class TableView(NamedTuple):
    """A frame table as a kernel reads it.

    Flat: cells_C[page] is the frame, or NOWHERE, and the others are None. In two levels: of pages
    64 g .. 64 g + 63 those are here whose bits are set in bits_G[g], and their frames lie in this
    order from cells_C[base_G[g]] on. cells_C and base_G are int32, bits_G is int64.
    """

    cells_C: Tensor
    base_G: Tensor | None = None
    bits_G: Tensor | None = None


class FrameTable(ABC):
    """Where the pages of one tier are: frames by page id. Updates name each page once."""

    device: torch.device

    @abstractmethod
    def frames(self, pages_N: Tensor) -> Tensor:
        """The frame of each page, int64, of the same shape; NOWHERE for one that is not here."""

    @abstractmethod
    def place(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """These pages, which were not here, are now in these frames."""

    @abstractmethod
    def remove(self, pages_N: Tensor) -> None:
        """These pages, which were here, are gone."""

    @abstractmethod
    def view(self) -> TableView:
        """The table as it lies in memory, for kernels; valid until the next update."""

    @abstractmethod
    def num_bytes(self) -> dict[str, int]:
        """Bytes allocated now, by part (such as `directory`), on the table's device."""


@dataclass(frozen=True)
class FetchPlan:
    """What has to move so that pages are in the fast tier; pure data, page ids but for frames_N.

    wanted_N: the pages asked for; frames_N: where they are now, NOWHERE for those absent; loads_N:
    those to be copied up; fresh_N: those without content yet, which only get a frame; victims_N:
    pages that leave the fast tier; dirty_N: the victims whose content exists nowhere else.
    """

    wanted_N: Tensor
    frames_N: Tensor
    loads_N: Tensor
    fresh_N: Tensor
    victims_N: Tensor
    dirty_N: Tensor


@dataclass(frozen=True)
class ReadyPages:
    """Frames of the fast tier that now hold the wanted pages, int64 [N]."""

    frames_N: Tensor


def waves(num_pages: int, num_frames: int) -> Iterator[tuple[int, int]]:
    """Cut pages into parts, [start, stop), that so many frames hold in turn."""
    for start in range(0, num_pages, num_frames):
        yield start, min(start + num_frames, num_pages)


@lru_cache
def prefix_bits(page_tokens: int, device: torch.device) -> Tensor:
    """Bit masks of the first n slots, int64 [page_tokens + 1]."""
    masks = [(1 << count) - 1 for count in range(page_tokens + 1)]
    signed = [mask - (1 << 64) if mask >> 63 else mask for mask in masks]
    return torch.tensor(signed, dtype=torch.int64, device=device)


def count_bits(live_N: Tensor, page_tokens: int) -> int:
    """Slots that count."""
    return int(bits_in(live_N if page_tokens == 64 else live_N & (1 << page_tokens) - 1).sum())


def bits_in(live_N: Tensor) -> Tensor:
    """Bits that are set, int64 [N]: each step adds neighbours, in fields of twice the width."""
    pairs_N = live_N - (live_N >> 1 & 0x5555555555555555)
    fours_N = (pairs_N & 0x3333333333333333) + (pairs_N >> 2 & 0x3333333333333333)
    bytes_N = (fours_N + (fours_N >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (bytes_N * 0x0101010101010101) >> 56


def options(names: Sequence[str]) -> str:
    """A list for a sentence: `a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
