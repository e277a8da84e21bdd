"""RULER's aggregation tasks: the most common words of a numbered list, and of a coded text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import chain, repeat
from operator import mul
from random import Random
from string import ascii_lowercase
from typing import Any, ClassVar

import numpy as np
from scipy.special import zeta

from harness.tasks.drafts import Counter, Draft, Generator
from harness.tasks.drawing import Distinct, shuffled_order
from harness.tasks.haystacks import Haystack, Parts
from harness.tasks.ruler_templates import COMMON_WORDS, FREQUENT_WORDS
from harness.tasks.token_counts import RunningSum, TokenCounts
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
        self, words: tuple[str, ...], repeats: tuple[int, int], seed: str, shuffle_seed: int
    ) -> None:
        self.words = words
        self.repeats = repeats
        self.shuffle_seed = shuffle_seed
        self._drawn = Distinct(Random(seed), len(words))

    @property
    def common(self) -> tuple[str, ...]:
        """The words that stand there most often."""
        return tuple(self._words(0, NUM_COMMON))

    def smallest_size(self, num_statements: int) -> int:
        """See Haystack."""
        return NUM_COMMON

    def largest_size(self) -> int:
        """See Haystack."""
        return len(self.words)

    def pieces(self, statements: Sequence[str], size: int, rng: Random) -> list[str]:
        """See Haystack; numbers and words by turns."""
        words, (often, seldom) = self._words(0, size), self.repeats
        repeated = words[:NUM_COMMON] * often + words[NUM_COMMON:] * seldom
        return numbered(_shuffled(repeated, self.shuffle_seed))

    def counter(self, parts: Parts, counts: TokenCounts) -> Callable[[int], int]:
        """See Haystack; each word is counted once, times how often it stands there."""
        often, seldom = self.repeats
        spaced = _spaced(self.words)
        num_ends = NUM_COMMON * often + seldom * len(self.words)
        numbers, of_words = counts.running(_spaced_numbers(num_ends)), counts.kept(spaced)
        words = RunningSum(
            lambda start, stop: [of_words[index] for index in self._drawn.part(start, stop)]
        )
        (last,) = self._words(0, 1)
        # The first number follows no space, and the last word stands before the question's line.
        fixed = parts.head_tokens(counts) + counts.lines("1.") - numbers.upto(1)
        fixed += counts.lines(f" {last}{parts.question}") - words.upto(1)

        def num_tokens(size: int) -> int:
            num_common = words.upto(NUM_COMMON)
            num_numbers = NUM_COMMON * often + (size - NUM_COMMON) * seldom
            num_tokens = often * num_common + seldom * (words.upto(size) - num_common)
            return fixed + numbers.upto(num_numbers) + num_tokens

        return num_tokens

    def _words(self, start: int, stop: int) -> list[str]:
        """Of the words in the order of their first draws."""
        return [self.words[index] for index in self._drawn.part(start, stop)]


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
        repeated = map(repeat, self.vocabulary, self._frequencies(size))
        return _shuffled(list(chain.from_iterable(repeated)), self.shuffle_seed)

    def counter(self, parts: Parts, counts: TokenCounts) -> Callable[[int], int]:
        """See Haystack; each word is counted once, times how often it stands there."""
        dots, last, *_ = spaced = [f" {word}" for word in self.vocabulary]
        fixed = counts.text(parts.head + self.vocabulary[0]) - sum(counts.each([dots, last]))
        fixed += counts.lines(last + parts.question)
        known: list[int] = []

        def num_tokens(size: int) -> int:
            frequencies = self._frequencies(size)
            known.extend(counts.each(spaced[len(known) : len(frequencies)]))
            return fixed + sum(map(mul, frequencies, known))

        return num_tokens

    def _frequencies(self, size: int) -> list[int]:
        """How often each word stands there, of those that do."""
        counts_V = (size * _zipf_powers(len(self.vocabulary)) / zeta(ALPHA)).astype(int)
        return [count for count in counts_V.tolist() if count]


@dataclass(frozen=True, kw_only=True)
class CommonWords(Generator):
    """cwe: a solved example, then a longer list; the ten words that stand there most often."""

    length: int
    shuffle_seed: int

    num_new_tokens: ClassVar[int] = COMMON_WORDS.num_new_tokens

    def draft(self, seed: str, counter_of: Callable[[Draft], Counter]) -> Draft:
        """See Generator."""
        full = self.length >= FULL_LENGTH
        shown = self._asked(f"{seed}:words", (30, 3) if full else (6, 1))
        size, repeats = (40, (10, 3)) if full else (20, (3, 1))
        solved = self._asked(f"{seed}:example", repeats)
        *answer, last = (f" {one}" for one in numbered(solved.references))
        rest = f"{last}\n{shown.head}"

        def head_tokens(counts: TokenCounts) -> int:
            of_solved = solved.counter(counts)(size)
            return of_solved + sum(counts.each(answer)) + counts.lines(rest)

        head = "".join((solved.prompt(size), *answer, rest))
        return replace(shown, head=head, head_counter=head_tokens)

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

    def draft(self, seed: str, counter_of: Callable[[Draft], Counter]) -> Draft:
        """See Generator."""
        rng = Random(seed)
        count = max(4, (self.length - self.num_new_tokens) // TOKENS_PER_CODED_WORD)
        vocabulary = _shuffled(sorted(_coded_words(rng, count)), self.shuffle_seed)
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


def _coded_words(rng: Random, count: int) -> list[str]:
    """So many words of random letters, none twice."""
    words: dict[str, None] = {}
    while len(words) < count:
        letters = "".join(rng.choices(ascii_lowercase, k=CODED_LETTERS * (count - len(words))))
        starts = range(0, len(letters), CODED_LETTERS)
        words |= dict.fromkeys(letters[start : start + CODED_LETTERS] for start in starts)
    return list(words)


@cache
def _zipf_powers(count: int) -> Any:
    return np.arange(1, count + 1) ** -ALPHA


@lru_cache(maxsize=8)
def _numbers(count: int) -> tuple[str, ...]:
    return tuple(f"{number}." for number in range(1, count + 1))


@lru_cache(maxsize=8)
def _spaced_numbers(count: int) -> tuple[str, ...]:
    return _spaced(_numbers(count))


@lru_cache(maxsize=8)
def _spaced(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f" {word}" for word in words)


def _shuffled(words: Sequence[str], seed: int) -> list[str]:
    return [words[index] for index in shuffled_order(len(words), seed)]
