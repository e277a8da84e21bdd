"""The two-level table in plain torch: any device, whole batches, the oracle of the compiled one.

A group's frames lie in the order of its bits in a slab, whose capacity is the least power of two
that holds them. A slab that shrinks keeps its front and frees the halves behind it.
"""

import torch
from torch import Tensor

from memory_tiers.base import NOWHERE, PAGES_PER_GROUP, FrameTable, TableView

GROUP = PAGES_PER_GROUP
NUM_CLASSES = 7
ABSENT = -1
LAST_CELL = torch.iinfo(torch.int32).max


class Slabs(FrameTable):
    """Directory, cells, and a stack of free slabs for each of the seven capacities 1 .. 64."""

    kernel = "torch"

    def __init__(self, num_pages: int, device: torch.device) -> None:
        """An empty directory, and cells for one group."""
        num_groups = -(-num_pages // GROUP)
        self._bits_G = torch.zeros(num_groups, dtype=torch.int64, device=device)
        self._base_G = torch.zeros(num_groups, dtype=torch.int32, device=device)
        self._cells_C = torch.full((GROUP,), NOWHERE, dtype=torch.int32, device=device)
        self._slot_E = torch.arange(GROUP, device=device)
        class_of = [ABSENT, *((count - 1).bit_length() for count in range(1, GROUP + 1))]
        self._class_of_E1 = torch.tensor(class_of, device=device)
        self._free = [torch.empty_like(self._base_G[:0]) for _ in range(NUM_CLASSES)]
        # Cells ever handed out, and how many of them are in slabs of groups.
        self._num_dealt, self._num_used = 0, 0

    def frames(self, pages_N: Tensor) -> Tensor:
        """See FrameTable."""
        group_N, slot_N = pages_N >> 6, pages_N & (GROUP - 1)
        bits_N = self._bits_G[group_N]
        below_N = (torch.ones_like(slot_N) << slot_N) - 1
        here_N = (bits_N >> slot_N & 1).bool()
        cell_N = self._base_G[group_N] + popcount(bits_N & below_N)
        frames_N = self._cells_C[cell_N.masked_fill(~here_N, 0)].long()
        return frames_N.masked_fill(~here_N, NOWHERE)

    def place(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """See FrameTable."""
        self._update(pages_N, frames_N.to(torch.int32))

    def remove(self, pages_N: Tensor) -> None:
        """See FrameTable."""
        self._update(pages_N, torch.full_like(pages_N, NOWHERE, dtype=torch.int32))

    def view(self) -> TableView:
        """See FrameTable."""
        return TableView(self._cells_C, self._base_G, self._bits_G)

    def num_bytes(self) -> dict[str, int]:
        """See FrameTable."""
        segments = self._num_used * self._cells_C.itemsize
        stacks = sum(stack.nbytes for stack in self._free)
        return {
            "directory": self._bits_G.nbytes + self._base_G.nbytes,
            "segments": segments,
            "reserved": self._cells_C.nbytes - segments + stacks,
        }

    def _update(self, pages_N: Tensor, frames_N: Tensor) -> None:
        """Set the frames of these pages; NOWHERE takes a page out."""
        if not pages_N.numel():
            return
        group_U, member_N = (pages_N >> 6).unique(return_inverse=True)
        slot_N = pages_N & (GROUP - 1)
        old_U = self._bits_G[group_U]
        named_U = torch.zeros_like(old_U).index_add_(0, member_N, torch.ones_like(slot_N) << slot_N)
        new_U = old_U ^ named_U
        old_class_U, new_class_U = self._classes(old_U), self._classes(new_U)
        self._make_room(new_class_U[new_class_U > old_class_U])
        base_U = self._base_G[group_U].long()
        frames_UE = self._gather(base_U, old_U)
        frames_UE[member_N, slot_N] = frames_N
        base_U = self._moved(base_U, old_class_U, new_class_U)
        here_UE = self._here(new_U)
        self._cells_C[self._cell(base_U, here_UE)[here_UE]] = frames_UE[here_UE]
        self._bits_G[group_U] = new_U
        self._base_G[group_U] = base_U.to(torch.int32)

    def _classes(self, bits_U: Tensor) -> Tensor:
        """Binary logarithm of each group's capacity; ABSENT for one without pages."""
        return self._class_of_E1[popcount(bits_U)]

    def _here(self, bits_U: Tensor) -> Tensor:
        """The bits apart, bool [U, 64]."""
        return (bits_U.unsqueeze(1) >> self._slot_E & 1).bool()

    def _cell(self, base_U: Tensor, here_UE: Tensor) -> Tensor:
        """Where the frame of each page that is here lies, [U, 64]; anything for the others."""
        return base_U.unsqueeze(1) + here_UE.cumsum(1) - 1

    def _gather(self, base_U: Tensor, bits_U: Tensor) -> Tensor:
        """Frames of whole groups, int32 [U, 64]."""
        here_UE = self._here(bits_U)
        cell_UE = self._cell(base_U, here_UE).masked_fill_(~here_UE, 0)
        return self._cells_C[cell_UE].masked_fill_(~here_UE, NOWHERE)

    def _moved(self, base_U: Tensor, old_class_U: Tensor, new_class_U: Tensor) -> Tensor:
        """Give up and take slabs, for groups whose capacity changes; the base of each slab."""
        base_U = base_U.clone()
        grown_U, emptied_U = new_class_U > old_class_U, new_class_U == ABSENT
        for size in range(NUM_CLASSES):
            left = base_U[(old_class_U == size) & (grown_U | emptied_U)]
            halved_U = (new_class_U <= size) & (size < old_class_U) & ~emptied_U
            halves = base_U[halved_U] + (1 << size)
            self._free[size] = torch.cat((self._free[size], left.int(), halves.int()))
        # Only once all slabs are given up: one that is taken again must be nobody's.
        for size in range(NUM_CLASSES):
            taking_U = grown_U & (new_class_U == size)
            base_U[taking_U] = self._take(size, int(taking_U.sum())).long()
        old, new = _capacities(old_class_U), _capacities(new_class_U)
        self._num_used += int((new - old).sum())
        return base_U

    def _take(self, size: int, count: int) -> Tensor:
        """Slabs of one capacity: freed ones, then cells that nobody has had."""
        stack = self._free[size]
        kept = max(0, len(stack) - count)
        fresh = count - (len(stack) - kept)
        self._free[size] = stack[:kept].clone()
        dealt = self._num_dealt + (torch.arange(fresh, device=stack.device) << size)
        self._num_dealt += fresh << size
        assert self._num_dealt <= len(self._cells_C)
        return torch.cat((stack[kept:], dealt.int()))

    def _make_room(self, classes_N: Tensor) -> None:
        """Have cells for new slabs of these capacities."""
        counts = torch.bincount(classes_N, minlength=NUM_CLASSES).tolist()
        fresh = [
            max(0, count - len(stack)) << size
            for size, (count, stack) in enumerate(zip(counts, self._free, strict=True))
        ]
        if self._num_dealt + sum(fresh) > len(self._cells_C):
            self._grow(sum(count << size for size, count in enumerate(counts)))

    def _grow(self, least: int) -> None:
        """More cells: those that lie free between slabs where they are many, or new ones."""
        # An eighth of a cell for each group keeps passes over the directory rare.
        slack = max(self._num_used // 4, len(self._bits_G) // 8, 1)
        if self._num_dealt - self._num_used >= slack:
            self._pack()
        size = self._num_dealt + max(least, slack)
        assert size <= LAST_CELL, f"{size} cells are more than int32 counts"
        if size > len(self._cells_C):
            cells_C = self._cells_C.new_full((size,), NOWHERE)
            cells_C[: self._num_dealt] = self._cells_C[: self._num_dealt]
            self._cells_C = cells_C

    def _pack(self) -> None:
        """Lay all slabs side by side, in the order of the groups."""
        group_U = self._bits_G.nonzero().squeeze(1)
        capacity_U = _capacities(self._classes(self._bits_G[group_U]))
        ends_U = capacity_U.cumsum(0)
        total = int(ends_U[-1]) if len(ends_U) else 0
        base_U = ends_U - capacity_U
        shift_U = self._base_G[group_U].long() - base_U
        source_C = torch.arange(total, device=base_U.device)
        source_C += shift_U.repeat_interleave(capacity_U, output_size=total)
        cells_C = self._cells_C.new_full((max(GROUP, total),), NOWHERE)
        cells_C[:total] = self._cells_C[source_C]
        self._cells_C = cells_C
        self._base_G[group_U] = base_U.int()
        self._num_dealt = total
        self._forget_free()

    def _forget_free(self) -> None:
        """No slab is free any more."""
        self._free = [stack[:0].clone() for stack in self._free]


def _capacities(classes_U: Tensor) -> Tensor:
    """Cells of a slab by its binary logarithm; none for ABSENT."""
    return (torch.ones_like(classes_U) << classes_U.clamp(min=0)).masked_fill(classes_U < 0, 0)


def popcount(bits_N: Tensor) -> Tensor:
    """Bits set in each int64, by sums of ever wider fields (Warren, Hacker's Delight, 5-1)."""
    bits_N = bits_N - (bits_N >> 1 & 0x5555555555555555)
    bits_N = (bits_N & 0x3333333333333333) + (bits_N >> 2 & 0x3333333333333333)
    bits_N = bits_N + (bits_N >> 4) & 0x0F0F0F0F0F0F0F0F
    return bits_N * 0x0101010101010101 >> 56
