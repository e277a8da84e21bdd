"""RULER's needle in a haystack: one value asked for, among one or more keys."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from harness.tasks.drafts import CountTokens, Draft, Generator
from harness.tasks.words import random_key

# RULER's template after its edits for a single answer, cut at the haystack.
HEAD = (
    "A special magic {value_name} is hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {value_name} afterwards.\n"
)
QUESTION = (
    "\nWhat is the special magic {value_name} for {query} mentioned in the provided text?"
    " The special magic {value_name} for {query} mentioned in the provided text is"
)
NEEDLE = "One of the special magic {value_name}s for {key} is: {value}."


@dataclass(frozen=True, kw_only=True)
class Niah(Generator):
    """`num_keys` needles, one key asked for."""

    num_keys: int
    values: str
    shuffle_seed: int

    value_names: ClassVar[tuple[str, ...]] = ("numbers", "uuids")
    num_new_tokens: ClassVar[int] = 128

    def draft(self, seed: str, count_tokens: CountTokens) -> Draft:
        """See Generator."""
        rng = Random(seed)
        value_name = self.values.removesuffix("s")
        keys = _distinct(self.num_keys, lambda: random_key(rng))
        values = _distinct(self.num_keys, lambda: _RANDOM_VALUE[self.values](rng))
        asked = rng.randrange(self.num_keys)
        needles = [
            NEEDLE.format(value_name=value_name, key=key, value=value)
            for key, value in zip(keys, values, strict=True)
        ]
        Random(self.shuffle_seed).shuffle(needles)
        return Draft(
            head=HEAD.format(value_name=value_name),
            haystack=self.haystack,
            statements=tuple(needles),
            places_seed=f"{seed}:places",
            question=QUESTION.format(value_name=value_name, query=keys[asked]),
            references=(values[asked],),
            metadata={"query": keys[asked], "keys": keys, "values": values},
        )

    def departures(self) -> Sequence[str]:
        """See Generator."""
        of_values = [] if self.values == "numbers" else [f"values={self.values}"]
        return [*super().departures(), *of_values]


def _distinct(count: int, draw: Callable[[], str]) -> list[str]:
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn[draw()] = None
    return list(drawn)


def _number(rng: Random) -> str:
    return str(rng.randint(10**6, 10**7 - 1))


def _uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


_RANDOM_VALUE = {"numbers": _number, "uuids": _uuid}
