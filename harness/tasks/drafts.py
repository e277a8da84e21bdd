"""A RULER sample before its haystack has a size, and the search for the size that fits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, ClassVar

from harness.tasks.haystacks import Haystack, Parts
from harness.tasks.token_counts import TokenCounts

PROBE_UNITS = 32
_LEAST_TOKENS_PER_UNIT = 0.1
_INTERPOLATIONS = 8

Counter = Callable[[int], int]


@dataclass(frozen=True, kw_only=True)
class Draft(Parts):
    """One sample: what is hidden, what is asked and what is right; its haystack can still grow."""

    haystack: Haystack
    references: tuple[str, ...]
    metadata: Mapping[str, Any]

    @property
    def smallest_size(self) -> int:
        """The least number of haystack units."""
        return self.haystack.smallest_size(len(self.statements))

    def context(self, size: int) -> str:
        """Everything before the question, with `size` units of haystack."""
        places = Random(self.places_seed)
        return self.head + self.haystack.hide(self.statements, size, places)

    def prompt(self, size: int) -> str:
        """Context and question."""
        return self.context(size) + self.question

    def counter(self, counts: TokenCounts) -> Counter:
        """Tokens of `prompt(size)`, from those of its pieces."""
        return self.haystack.counter(self, counts)

    def depths(self, context: str) -> list[float]:
        """Where each statement starts, as a fraction of the context's characters."""
        starts = (context.index(statement, len(self.head)) for statement in self.statements)
        return [round(start / len(context), 4) for start in starts]


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """The settings of one RULER task; `num_new_tokens` is RULER's own `tokens_to_generate`."""

    haystack: Haystack
    original_haystack: str

    num_new_tokens: ClassVar[int]

    @abstractmethod
    def draft(self, seed: str, counter_of: Callable[[Draft], Counter]) -> Draft:
        """The sample of one seed; counter_of: tokens of other prompts that it may hold."""

    @property
    def most_questions(self) -> int:
        """Questions that one context of the task can be asked."""
        return 1

    def drafts(
        self, seed: str, counter_of: Callable[[Draft], Counter], num_questions: int
    ) -> list[Draft]:
        """The sample of one seed, a draft for each question; the first is that of `draft`."""
        assert num_questions <= self.most_questions, num_questions
        return [self.draft(seed, counter_of)]

    def departures(self) -> Sequence[str]:
        """The settings, as `key=value`, that are not RULER's."""
        setting = self.haystack.setting
        return [] if setting == self.original_haystack else [setting]


def largest_size(draft: Draft, num_tokens_of: Counter, limit: int) -> int:
    """The haystack size that fills `limit` tokens, short of it by less than an average unit.

    Interpolates between counted sizes: tokens grow almost evenly with units, so that two or three
    counts do what bisection does in ten. The size returned was itself counted and fits.
    """
    size = draft.smallest_size
    num_tokens = num_tokens_of(size)
    assert num_tokens <= limit, f"{num_tokens} tokens are more than {limit}"
    too_large = size + limit + 1
    guess = size + min(PROBE_UNITS, limit)
    while too_large - size > 1:
        num_guessed = num_tokens_of(guess)
        per_unit = max((num_guessed - num_tokens) / (guess - size), _LEAST_TOKENS_PER_UNIT)
        if num_guessed <= limit:
            size, num_tokens = guess, num_guessed
        else:
            too_large = guess
        num_more = int((limit - num_tokens) / per_unit)
        if num_more == 0:
            break
        guess = min(size + num_more, too_large - 1)
    return size


def fitting_size(draft: Draft, num_tokens: Callable[[int], int], limit: int, guess: int) -> int:
    """A haystack size of at most `limit` tokens, short of it by less than an average unit.

    Interpolates at first, as `largest_size` does, then halves: it comes to an end for any counts.
    Raises ValueError where the smallest size does not fit.
    """
    low, low_tokens = draft.smallest_size, num_tokens(draft.smallest_size)
    if low_tokens > limit:
        raise ValueError(f"{low_tokens} tokens are more than {limit}")
    high = low + limit + 1
    if (largest := draft.haystack.largest_size()) is not None:
        high = min(high, largest + 1)
    for number in count():
        if high - low <= 1:
            return low
        guess = min(max(guess, low + 1), high - 1)
        guess_tokens = num_tokens(guess)
        per_unit = max((guess_tokens - low_tokens) / (guess - low), _LEAST_TOKENS_PER_UNIT)
        if guess_tokens <= limit:
            low, low_tokens = guess, guess_tokens
        else:
            high = guess
        num_more = int((limit - low_tokens) / per_unit)
        if num_more == 0:
            return low
        guess = (low + high) // 2 if number > _INTERPOLATIONS else low + num_more
    raise AssertionError
