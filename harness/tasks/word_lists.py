"""RULER's aggregation tasks: the most common words of a numbered list, and of a coded text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from random import Random
from string import ascii_lowercase
from typing import ClassVar

import numpy as np
from scipy.special import zeta

from harness.tasks.drafts import CountTokens, Draft, Generator
from harness.tasks.haystacks import Haystack
from harness.tasks.needles import distinct
from harness.tasks.ruler_templates import COMMON_WORDS, FREQUENT_WORDS
from harness.tasks.words import all_words

NUM_COMMON = 10
# Below this length RULER repeats words less often and shows a shorter example.
FULL_LENGTH = 4096
CODED_LETTERS = 6
TOKENS_PER_CODED_WORD = 50
ALPHA = 2.0


class NumberedWords(Haystack):
    """Words in random order, some more often than others; a unit is a word however often.

    repeats: how often each of the first `NUM_COMMON` words stands there, and each other one.
    """

    setting = "haystack=words"
    joiner = " "

    def __init__(
        self, words: Sequence[str], repeats: tuple[int, int], seed: str, shuffle_seed: int
    ) -> None:
        self.words = words
        self.repeats = repeats
        self.shuffle_seed = shuffle_seed
        self._rng = Random(seed)
        self._drawn: dict[str, None] = {}
        self._repeated(NUM_COMMON)

    @property
    def common(self) -> tuple[str, ...]:
        """The words that stand there most often."""
        return tuple(islice(self._drawn, NUM_COMMON))

    def smallest_size(self, num_statements: int) -> int:
        """See Haystack."""
        return NUM_COMMON

    def largest_size(self) -> int:
        """See Haystack."""
        return len(self.words)

    def pieces(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """See Haystack; numbers and words by turns."""
        return numbered(_shuffled(self._repeated(size), self.shuffle_seed))

    def unordered(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """See Haystack."""
        return numbered(self._repeated(size))

    def _repeated(self, size: int) -> list[str]:
        while len(self._drawn) < size:
            self._drawn[self._rng.choice(self.words)] = None
        words, (often, seldom) = list(islice(self._drawn, size)), self.repeats
        return words[:NUM_COMMON] * often + words[NUM_COMMON:] * seldom


class CodedText(Haystack):
    """Coded words with Zipf frequencies, the first of the vocabulary as noise; a unit is a word."""

    setting = "haystack=coded"
    joiner = " "

    def __init__(self, vocabulary: Sequence[str], shuffle_seed: int) -> None:
        self.vocabulary = vocabulary
        self.shuffle_seed = shuffle_seed

    def smallest_size(self, num_statements: int) -> int:
        """See Haystack; as many as it takes for the third word to stand there more than once."""
        return 64

    def pieces(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """See Haystack."""
        return _shuffled(self.unordered(statements, size, rng), self.shuffle_seed)

    def unordered(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """See Haystack."""
        ranks_V = np.arange(1, len(self.vocabulary) + 1)
        counts_V = (size * ranks_V**-ALPHA / zeta(ALPHA)).astype(int)
        counted = zip(self.vocabulary, counts_V.tolist(), strict=True)
        return [word for word, count in counted for _ in range(count)]


@dataclass(frozen=True, kw_only=True)
class CommonWords(Generator):
    """cwe: a solved example, then a longer list; the ten words that stand there most often."""

    length: int
    shuffle_seed: int

    num_new_tokens: ClassVar[int] = COMMON_WORDS.num_new_tokens

    def draft(self, seed: str, count_tokens: CountTokens) -> Draft:
        """See Generator."""
        full = self.length >= FULL_LENGTH
        shown = self._asked(f"{seed}:words", (30, 3) if full else (6, 1))
        size, repeats = (40, (10, 3)) if full else (20, (3, 1))
        solved = self._asked(f"{seed}:example", repeats)
        answer = " ".join(numbered(solved.references))
        return replace(shown, head=f"{solved.prompt(size)} {answer}\n{shown.head}")

    def _asked(self, seed: str, repeats: tuple[int, int]) -> Draft:
        haystack = NumberedWords(all_words(), repeats, seed, self.shuffle_seed)
        return Draft(
            head=COMMON_WORDS.head,
            haystack=haystack,
            statements=(),
            places_seed="",
            question=COMMON_WORDS.question + COMMON_WORDS.answer_prefix,
            references=haystack.common,
            metadata={},
        )


@dataclass(frozen=True, kw_only=True)
class FrequentWords(Generator):
    """fwe: the three words that a coded text says most often, dots apart."""

    length: int
    shuffle_seed: int

    num_new_tokens: ClassVar[int] = FREQUENT_WORDS.num_new_tokens

    def draft(self, seed: str, count_tokens: CountTokens) -> Draft:
        """See Generator."""
        rng = Random(seed)
        count = max(4, (self.length - self.num_new_tokens) // TOKENS_PER_CODED_WORD)
        coded = distinct(count, lambda: "".join(rng.choices(ascii_lowercase, k=CODED_LETTERS)))
        vocabulary = sorted(coded)
        Random(self.shuffle_seed).shuffle(vocabulary)
        vocabulary[0] = "..."
        return Draft(
            head=FREQUENT_WORDS.head,
            haystack=CodedText(vocabulary, self.shuffle_seed),
            statements=(),
            places_seed="",
            question=FREQUENT_WORDS.question + FREQUENT_WORDS.answer_prefix,
            references=tuple(vocabulary[1:4]),
            metadata={},
        )


def numbered(words: Sequence[str]) -> list[str]:
    """Numbers from one and words by turns."""
    pieces = [""] * (2 * len(words))
    pieces[::2] = _numbers(-(-len(words) // 1024) * 1024)[: len(words)]
    pieces[1::2] = words
    return pieces


@lru_cache(maxsize=8)
def _numbers(count: int) -> list[str]:
    return [f"{number}." for number in range(1, count + 1)]


def _shuffled(words: Sequence[str], seed: int) -> list[str]:
    return [words[index] for index in _shuffled_order(len(words), seed)]


@lru_cache(maxsize=64)
def _shuffled_order(size: int, seed: int) -> list[int]:
    order = list(range(size))
    Random(seed).shuffle(order)
    return order
