"""Levels below each other: what has to move so that pages get down or up, in order."""

import torch
from torch import Tensor

from memory_tiers.base import NOWHERE, OutOfFramesError
from memory_tiers.counters import Counters
from memory_tiers.level import Level, Move
from memory_tiers.mover import Mover


class Hierarchy:
    """Changes the tables at once and returns the moves that make them true, to be run in order.

    A level in the middle is a cache of the ones below: what comes up from below passes through it.
    """

    def __init__(self, levels: tuple[Level, ...], counters: Counters) -> None:
        """Fastest first."""
        self.levels = levels
        self.mover = Mover(counters)

    def stored_below(self, pages_N: Tensor) -> Tensor:
        """Which pages have a frame on a level below the fast one, bool [N]."""
        stored_N = torch.zeros_like(pages_N, dtype=torch.bool)
        for level in self.levels[1:]:
            stored_N |= level.frames(pages_N) != NOWHERE
        return stored_N

    def write_back(self, upper: int, pages_N: Tensor, keep_N: Tensor) -> list[Move]:
        """Bring pages that changed on level `upper` one level down; `keep_N` rather stay there."""
        if pages_N.numel() == 0:
            return []
        source, lower = self.levels[upper], self.levels[upper + 1]
        moves = []
        for part_N in pages_N.split(max(1, lower.tier.num_frames)):
            moves += self._make_room(upper + 1, part_N, keep_N)
            lower.place(part_N[lower.frames(part_N) == NOWHERE])
            from_N, to_N = source.frames(part_N), lower.frames(part_N)
            source.changed_F[from_N] = False
            lower.changed_F[to_N] = lower is not self.levels[-1]
            lower.touch(to_N, part_N)
            moves.append(Move(source, from_N, lower, to_N, part_N))
        return moves

    def load(self, pages_N: Tensor, upper: int = 0) -> list[Move]:
        """Bring pages up to level `upper`, which has room for them; all are stored below it."""
        if pages_N.numel() == 0:
            return []
        lower = self.levels[upper + 1]
        is_near_N = lower.frames(pages_N) != NOWHERE
        moves = self._lift(upper, pages_N[is_near_N])
        far_N = pages_N[~is_near_N]
        if far_N.numel():
            for part_N in far_N.split(lower.tier.num_frames):
                moves += self._make_room(upper + 1, part_N, part_N[:0])
                moves += self.load(part_N, upper + 1)
                moves += self._lift(upper, part_N)
        return moves

    def free(self, pages_N: Tensor) -> None:
        """Give back every frame of these pages."""
        self.mover.settle()
        for level in self.levels:
            level.drop(pages_N[level.frames(pages_N) != NOWHERE])

    def _lift(self, upper: int, pages_N: Tensor) -> list[Move]:
        if pages_N.numel() == 0:
            return []
        target, lower = self.levels[upper], self.levels[upper + 1]
        from_N = lower.frames(pages_N)
        lower.touch(from_N, pages_N)
        to_N = target.place(pages_N)
        if upper > 0:
            target.touch(to_N, pages_N)
        return [Move(lower, from_N, target, to_N, pages_N)]

    def _make_room(self, at: int, coming_N: Tensor, keep_N: Tensor) -> list[Move]:
        """Free frames for those of `coming_N` that level `at` does not hold."""
        level = self.levels[at]
        frame_N = level.frames(coming_N)
        short = int((frame_N == NOWHERE).sum()) - level.num_free
        if short <= 0:
            return []
        victims_N = level.victims(short, torch.cat((frame_N, level.frames(keep_N))))
        if victims_N.numel() < short:
            victims_N = level.victims(short, frame_N)
        if victims_N.numel() < short:
            raise OutOfFramesError(
                f"tier.{level.name}.size is full: {level.tier.num_frames} pages; raise it, or "
                "lower backend.max_batch"
            )
        moves = []
        if level is not self.levels[-1]:
            moves = self.write_back(at, level.changed(victims_N), keep_N)
        level.drop(victims_N)
        return moves
