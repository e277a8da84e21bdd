"""The texts that statements are hidden in, grown unit by unit to fill a length."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import ClassVar

NOISE_LINE = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
)
# RULER's depths, np.round(np.linspace(0, 100, num=40)), in per cent.
DEPTHS = tuple(round(100 * step / 39) for step in range(40))


class Haystack(ABC):
    """A filler text of any size, and the places where statements go into it.

    `setting` is the choice of this haystack as `key=value`.
    """

    setting: ClassVar[str]
    joiner: ClassVar[str]

    @abstractmethod
    def smallest_size(self, num_statements: int) -> int:
        """The least number of units that can hide `num_statements`."""

    @abstractmethod
    def hide(self, statements: Sequence[str], size: int, rng: Random) -> str:
        """A text of `size` units with the statements in their order at random places."""


class Noise(Haystack):
    """Copies of RULER's noise line; a unit is a line."""

    setting = "haystack=noise"
    joiner = "\n"

    def smallest_size(self, num_statements: int) -> int:
        """See Haystack."""
        return num_statements

    def hide(self, statements: Sequence[str], size: int, rng: Random) -> str:
        """See Haystack."""
        lines = [NOISE_LINE] * size
        places = sorted(rng.sample(range(size), len(statements)))
        for num_before, (place, statement) in enumerate(zip(places, statements, strict=True)):
            lines.insert(place + num_before, statement)
        return self.joiner.join(lines)


class SpacedNoise(Noise):
    """Noise in one paragraph: sentences follow each other after a space."""

    setting = "vt_joiner=space"
    joiner = " "


class Prose(Haystack):
    """The bundled English prose, repeated as needed; a unit is a word.

    Stands where RULER has the Paul Graham essays, which may not be redistributed.
    """

    setting = "haystack=prose"
    joiner = " "

    def smallest_size(self, num_statements: int) -> int:
        """See Haystack."""
        return 1

    def hide(self, statements: Sequence[str], size: int, rng: Random) -> str:
        """See Haystack; an empty end beside depth 0 or 100 leaves a space, as in RULER."""
        sentences = _sentences(_words(size))
        depths = rng.sample(DEPTHS, len(statements))
        places = sorted(int(len(sentences) * (depth / 100)) for depth in depths)
        pieces = []
        for (start, stop), statement in zip(pairwise([0, *places]), statements, strict=True):
            pieces += [" ".join(sentences[start:stop]), statement]
        return " ".join([*pieces, " ".join(sentences[places[-1] :])])


def _words(size: int) -> list[str]:
    corpus = _prose_words()
    num_copies = -(-size // len(corpus))
    return list((corpus * num_copies)[:size])


def _sentences(words: Sequence[str]) -> list[str]:
    return re.split(r"(?<=[.!?]) ", " ".join(words))


@cache
def _prose_words() -> tuple[str, ...]:
    path = Path(__file__).parent / "data" / "prose.txt"
    return tuple(path.read_text(encoding="ascii").split())
