"""What RULER hides: keys and values of three kinds, and the haystack that is made of needles."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from random import Random
from typing import Self

from harness.tasks.haystacks import Noise
from harness.tasks.ruler_templates import NEEDLE
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
        self._order: list[int] = []

    def for_sample(self, seed: str) -> Self:
        """See Haystack."""
        mine = copy(self)
        indexes = range(len(self.pool))
        mine._order = Random(f"{seed}:distractors").sample(indexes, len(indexes))
        return mine

    def largest_size(self) -> int:
        """See Haystack."""
        return len(self.pool)

    def lines(self, size: int) -> list[str]:
        """See Noise."""
        return [self.pool[index] for index in self._order[:size]]


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
