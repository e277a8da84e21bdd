"""What RULER hides: keys and values of three kinds, and the haystack that is made of needles."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from itertools import islice
from random import Random
from typing import Self

from harness.tasks.drawing import permuted
from harness.tasks.haystacks import Noise
from harness.tasks.ruler_templates import NEEDLE
from harness.tasks.token_counts import RunningSum, TokenCounts
from harness.tasks.words import random_key


class Needles(Noise):
    """Needles that nobody asks for, a line each.

    The samples of a task draw theirs from one pool of `pool_size`, so that its tokens are counted
    once; within a sample they are independent draws, as in RULER.
    """

    setting = "haystack=needle"

    def __init__(self, *, keys: str, values: str, pool_size: int, seed: str) -> None:
        rng = Random(f"{seed}:distractors")
        self.pool = [needle(values, DRAW[keys](rng), DRAW[values](rng)) for _ in range(pool_size)]
        self._ended = [f"{one}\n" for one in self.pool]
        self._draws: Iterator[int] = iter(())
        self._order: list[int] = []

    def for_sample(self, seed: str) -> Self:
        """See Haystack."""
        mine = copy(self)
        mine._draws = permuted(Random(f"{seed}:distractors"), len(self.pool))
        mine._order = []
        return mine

    def largest_size(self) -> int:
        """See Haystack."""
        return len(self.pool)

    def lines(self, size: int) -> list[str]:
        """See Noise."""
        return [self.pool[index] for index in self._indexes(0, size)]

    def line_counter(self, counts: TokenCounts) -> Callable[[int], int]:
        """See Noise."""
        of_pool = counts.kept(self._ended)
        lines = RunningSum(
            lambda start, stop: [of_pool[index] for index in self._indexes(start, stop)]
        )
        return lines.upto

    def _indexes(self, start: int, stop: int) -> list[int]:
        """Of the pool, in the order of this sample."""
        self._order.extend(islice(self._draws, max(0, stop - len(self._order))))
        return self._order[start:stop]


def needle(values: str, key: str, value: str) -> str:
    """RULER's sentence for one value; values: their kind."""
    return NEEDLE.format(value_names=values, key=key, value=value)


def distinct(count: int, draw: Callable[[], str], taken: Sequence[str] = ()) -> list[str]:
    """So many draws, none twice and none that is taken."""
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        one = draw()
        if one not in taken:
            drawn[one] = None
    return list(drawn)


def _number(rng: Random) -> str:
    return str(rng.randint(10**6, 10**7 - 1))


def _uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


DRAW: Mapping[str, Callable[[Random], str]] = {
    "words": random_key,
    "numbers": _number,
    "uuids": _uuid,
}
