"""The texts that statements are hidden in, grown unit by unit to fill a length."""

import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import ClassVar, Self

from harness.tasks.ruler_templates import NOISE_LINE

# RULER's depths, np.round(np.linspace(0, 100, num=40)), in per cent.
DEPTHS = tuple(round(100 * step / 39) for step in range(40))


class Haystack(ABC):
    """A filler text of any size, and the places where statements go into it.

    `setting` is the choice of this haystack as `key=value`.
    """

    setting: str
    joiner: ClassVar[str]

    @abstractmethod
    def smallest_size(self, num_statements: int) -> int:
        """The least number of units that can hide `num_statements`."""

    @abstractmethod
    def pieces(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """What `hide` joins."""

    def unordered(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """The pieces in any order that does not change the number of their tokens."""
        return self.pieces(statements, size, rng)

    def largest_size(self) -> int | None:
        """The number of units there are, or None where there is no end of them."""
        return None

    def hide(self, statements: Sequence[str], size: int, rng: Random) -> str:
        """A text of `size` units with the statements in their order at random places."""
        return self.joiner.join(self.pieces(statements, size, rng))

    def for_sample(self, seed: str) -> Self:
        """The haystack of one sample."""
        return self


class Noise(Haystack):
    """Copies of RULER's noise line; a unit is a line."""

    setting = "haystack=noise"
    joiner = "\n"

    def smallest_size(self, num_statements: int) -> int:
        """See Haystack."""
        return num_statements

    def lines(self, size: int) -> list[str]:
        """The lines between which statements go."""
        return [NOISE_LINE] * size

    def pieces(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """See Haystack."""
        lines = self.lines(size)
        places = sorted(rng.sample(range(size), len(statements)))
        for num_before, (place, statement) in enumerate(zip(places, statements, strict=True)):
            lines.insert(place + num_before, statement)
        return lines


class SpacedNoise(Noise):
    """Noise in one paragraph: sentences follow each other after a space."""

    setting = "vt_joiner=space"
    joiner = " "


@dataclass(frozen=True)
class Text:
    """A text by its sentences, whose words one space parts; `ends[i]`: words up to sentence i."""

    sentences: tuple[str, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, sentences: Sequence[str]) -> Self:
        """Sentences in their order."""
        num_words = (sentence.count(" ") + 1 for sentence in sentences)
        return cls(tuple(sentences), tuple(accumulate(num_words)))

    def first_words(self, size: int) -> list[str]:
        """The sentences of the first `size` words of the text, which is repeated as needed."""
        num_copies, num_words = divmod(size, self.ends[-1])
        num_whole = bisect_left(self.ends, num_words)
        sentences = [*self.sentences * num_copies, *self.sentences[:num_whole]]
        num_left = num_words - (self.ends[num_whole - 1] if num_whole else 0)
        if num_left:
            sentences.append(" ".join(self.sentences[num_whole].split(" ")[:num_left]))
        return sentences


class Essay(Haystack):
    """A text, repeated as needed; a unit is a word."""

    joiner = " "

    def __init__(self, text: Text, setting: str) -> None:
        self.text = text
        self.setting = setting

    def smallest_size(self, num_statements: int) -> int:
        """See Haystack."""
        return 1

    def pieces(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """See Haystack; an empty end beside depth 0 or 100 leaves a space, as in RULER."""
        sentences = self.text.first_words(size)
        depths = rng.sample(DEPTHS, len(statements))
        places = sorted(int(len(sentences) * (depth / 100)) for depth in depths)
        pieces = []
        for (start, stop), statement in zip(pairwise([0, *places]), statements, strict=True):
            pieces += [*(sentences[start:stop] or [""]), statement]
        return [*pieces, *(sentences[places[-1] :] or [""])]


class Prose(Essay):
    """The bundled English prose.

    Stands where RULER has the Paul Graham essays, which may not be redistributed.
    """

    def __init__(self) -> None:
        super().__init__(_bundled_prose(), "haystack=prose")


def sentences_by_rule(text: str) -> list[str]:
    """A text cut after each full stop, exclamation and question mark that a space follows."""
    return re.split(r"(?<=[.!?]) ", " ".join(text.split()))


@cache
def _bundled_prose() -> Text:
    path = Path(__file__).parent / "data" / "prose.txt"
    return Text.of(sentences_by_rule(path.read_text(encoding="ascii")))
