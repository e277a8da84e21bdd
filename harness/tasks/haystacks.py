"""The texts that statements are hidden in, grown unit by unit to fill a length."""

import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import ClassVar, Self

from harness.tasks.ruler_templates import NOISE_LINE
from harness.tasks.token_counts import TokenCounts

# RULER's depths, np.round(np.linspace(0, 100, num=40)), in per cent.
DEPTHS = tuple(round(100 * step / 39) for step in range(40))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What of a prompt is no haystack: what stands before, in (at places of a seed) and after.

    head_counter: counts `head`, where its lines are too many and too new to be counted by them.
    """

    head: str
    statements: tuple[str, ...]
    places_seed: str
    question: str
    head_counter: Callable[[TokenCounts], int] | None = None

    def head_tokens(self, counts: TokenCounts) -> int:
        """Tokens of `head`, with what the tokenizer adds."""
        return self.head_counter(counts) if self.head_counter else counts.text(self.head)


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

    def largest_size(self) -> int | None:
        """The number of units there are, or None where there is no end of them."""
        return None

    def hide(self, statements: Sequence[str], size: int, rng: Random) -> str:
        """A text of `size` units with the statements in their order at random places."""
        return self.joiner.join(self.pieces(statements, size, rng))

    def counter(self, parts: Parts, counts: TokenCounts) -> Callable[[int], int]:
        """Tokens of a prompt by its size, from those of its pieces."""

        def num_tokens(size: int) -> int:
            body = self.hide(parts.statements, size, Random(parts.places_seed))
            return counts.text(parts.head + body + parts.question)

        return num_tokens

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

    def counter(self, parts: Parts, counts: TokenCounts) -> Callable[[int], int]:
        """See Haystack."""
        assert parts.question.startswith("\n"), "the question ends the last line"
        statements = counts.each([f"{statement}\n" for statement in parts.statements])
        fixed = parts.head_tokens(counts) + sum(statements) + counts.lines(parts.question[1:])
        num_tokens = self.line_counter(counts)
        return lambda size: fixed + num_tokens(size)

    def line_counter(self, counts: TokenCounts) -> Callable[[int], int]:
        """Tokens of so many lines and of their ends."""
        (of_line,) = counts.each([f"{NOISE_LINE}\n"])
        return lambda size: size * of_line


class SpacedNoise(Noise):
    """Noise in one paragraph: sentences follow each other after a space."""

    setting = "vt_joiner=space"
    joiner = " "

    def counter(self, parts: Parts, counts: TokenCounts) -> Callable[[int], int]:
        """See Haystack."""
        return Haystack.counter(self, parts, counts)


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

    @cached_property
    def spaced(self) -> tuple[str, ...]:
        """The sentences, each after a space."""
        return tuple(f" {sentence}" for sentence in self.sentences)

    def first_words(self, size: int) -> list[str]:
        """The sentences of the first `size` words of the text, which is repeated as needed."""
        num_copies, num_whole, rest = self.cut(size)
        sentences = [*self.sentences * num_copies, *self.sentences[:num_whole]]
        return [*sentences, rest] if rest else sentences

    def cut(self, size: int) -> tuple[int, int, str]:
        """The first `size` words as copies of the text, sentences, and what is left of one."""
        num_copies, num_words = divmod(size, self.ends[-1])
        num_whole = bisect_left(self.ends, num_words)
        num_left = num_words - (self.ends[num_whole - 1] if num_whole else 0)
        rest = self.sentences[num_whole].split(" ")[:num_left] if num_left else []
        return num_copies, num_whole, " ".join(rest)


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

    def counter(self, parts: Parts, counts: TokenCounts) -> Callable[[int], int]:
        """See Haystack; every sentence is counted after a space, then what stands elsewhere."""
        depths = Random(parts.places_seed).sample(DEPTHS, len(parts.statements))
        statements = counts.each([f" {statement}" for statement in parts.statements])
        fixed = parts.head_tokens(counts) + sum(statements)
        sentences = counts.running(self.text.spaced)

        def num_tokens(size: int) -> int:
            num_copies, num_whole, rest = self.text.cut(size)
            length = len(self.text.sentences)
            num_sentences = num_copies * length + num_whole + bool(rest)
            filler = num_copies * sentences.upto(length) if num_copies else 0
            filler += sentences.upto(num_whole) + (counts.lines(f" {rest}") if rest else 0)
            places = [int(num_sentences * (depth / 100)) for depth in depths]
            first = self.text.sentences[0] if num_sentences > 1 or not rest else rest
            last = rest or self.text.sentences[num_whole - 1]
            ends = self._ends(first, last, sorted(places), num_sentences, parts.question, counts)
            return fixed + filler + ends

        return num_tokens

    def _ends(
        self,
        first: str,
        last: str,
        places: Sequence[int],
        num_sentences: int,
        question: str,
        counts: TokenCounts,
    ) -> int:
        """Tokens of the question, of empty ends, and what a sentence takes less at an end."""
        num_empty = sum(start == stop for start, stop in pairwise(places))
        tokens = num_empty * counts.lines(" ")
        if places[0]:
            tokens += counts.lines(first) - counts.lines(f" {first}")
        word = last.rpartition(" ")[2] if places[-1] < num_sentences else ""
        tokens += counts.lines(f" {word}{question}") - (counts.lines(f" {word}") if word else 0)
        return tokens


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
