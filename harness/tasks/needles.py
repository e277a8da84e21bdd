"""What RULER hides: keys and values of three kinds, and the haystack that is made of needles."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Self

from harness.tasks.haystacks import Noise
from harness.tasks.ruler_templates import NEEDLE
from harness.tasks.words import random_key


class Needles(Noise):
    """Needles that nobody asks for, a line each; the first of a sample are always the same."""

    setting = "haystack=needle"

    def __init__(self, *, keys: str, values: str, seed: str = "") -> None:
        self.keys = keys
        self.values = values
        self._rng = Random(f"{seed}:distractors")
        self._drawn: list[str] = []

    def for_sample(self, seed: str) -> Self:
        """See Haystack."""
        return type(self)(keys=self.keys, values=self.values, seed=seed)

    def lines(self, size: int) -> list[str]:
        """See Noise."""
        while len(self._drawn) < size:
            key, value = DRAW[self.keys](self._rng), DRAW[self.values](self._rng)
            self._drawn.append(needle(self.values, key, value))
        return self._drawn[:size]


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
