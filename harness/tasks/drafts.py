"""A RULER sample before its haystack has a size, and the search for the size that fits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from harness.tasks.haystacks import Haystack

_PROBE_UNITS = 32
_LEAST_TOKENS_PER_UNIT = 0.1

CountTokens = Callable[[str], int]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One sample: what is hidden, what is asked and what is right; its haystack can still grow."""

    head: str
    haystack: Haystack
    statements: tuple[str, ...]
    places_seed: str
    question: str
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
    def draft(self, seed: str, count_tokens: CountTokens) -> Draft:
        """The sample of one seed."""

    def departures(self) -> Sequence[str]:
        """The settings, as `key=value`, that are not RULER's."""
        setting = self.haystack.setting
        return [] if setting == self.original_haystack else [setting]


def largest_size(draft: Draft, count_tokens: CountTokens, limit: int) -> int:
    """The haystack size that fills `limit` tokens, short of it by less than an average unit.

    Interpolates between counted sizes: tokens grow almost evenly with units, so that two or three
    counts do what bisection does in ten. The size returned was itself counted and fits.
    """
    size = draft.smallest_size
    num_tokens = count_tokens(draft.prompt(size))
    assert num_tokens <= limit, f"{num_tokens} tokens are more than {limit}"
    too_large = size + limit + 1
    guess = size + min(_PROBE_UNITS, limit)
    while too_large - size > 1:
        num_guessed = count_tokens(draft.prompt(guess))
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
