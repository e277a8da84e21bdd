"""RULER's needle in a haystack: one or more values of one or more keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar

from harness.tasks.drafts import Counter, Draft, Generator
from harness.tasks.needles import DRAW, distinct, needle
from harness.tasks.ruler_templates import NIAH, for_one_answer


@dataclass(frozen=True, kw_only=True)
class Niah(Generator):
    """`num_keys` keys with `num_values` values each, `num_queries` of the keys asked for."""

    num_keys: int
    values: str
    shuffle_seed: int
    keys: str = "words"
    num_values: int = 1
    num_queries: int = 1
    original_values: str = "numbers"

    value_names: ClassVar[tuple[str, ...]] = ("numbers", "uuids")
    num_new_tokens: ClassVar[int] = NIAH.num_new_tokens

    @property
    def most_questions(self) -> int:
        """Each key is asked for once."""
        return self.num_keys // self.num_queries

    def draft(self, seed: str, counter_of: Callable[[Draft], Counter]) -> Draft:
        """See Generator."""
        return self.drafts(seed, counter_of, 1)[0]

    def drafts(
        self, seed: str, counter_of: Callable[[Draft], Counter], num_questions: int
    ) -> list[Draft]:
        """See Generator."""
        rng = Random(seed)
        keys = distinct(self.num_keys, lambda: DRAW[self.keys](rng))
        values = distinct(self.num_keys * self.num_values, lambda: DRAW[self.values](rng))
        first = self._asked(rng)
        values_of = [values[index :: self.num_keys] for index in range(self.num_keys)]
        needles = [
            needle(self.values, key, value)
            for key, own in zip(keys, values_of, strict=True)
            for value in own
        ]
        Random(self.shuffle_seed).shuffle(needles)
        names, wording = self.values, NIAH
        if self.num_values * self.num_queries == 1:
            names, wording = names.removesuffix("s"), for_one_answer(NIAH)
        haystack, made = self.haystack.for_sample(seed), []
        for asked in [first, *self._asked_later(seed, first)][:num_questions]:
            query = _listed([keys[index] for index in asked])
            question = wording.question + wording.answer_prefix
            made.append(
                Draft(
                    head=wording.head.format(value_names=names),
                    haystack=haystack,
                    statements=tuple(needles),
                    places_seed=f"{seed}:places",
                    question=question.format(value_names=names, query=query),
                    references=tuple(value for index in asked for value in values_of[index]),
                    metadata={"query": query, "keys": keys, "values": values},
                )
            )
        return made

    def departures(self) -> Sequence[str]:
        """See Generator."""
        of_values = [] if self.values == self.original_values else [f"values={self.values}"]
        return [*super().departures(), *of_values]

    def _asked(self, rng: Random) -> list[int]:
        if self.num_queries == 1:
            return [rng.randrange(self.num_keys)]
        return rng.sample(range(self.num_keys), self.num_queries)

    def _asked_later(self, seed: str, first: Sequence[int]) -> list[list[int]]:
        """Keys of the questions behind the first one, all of which are left of them."""
        left = [index for index in range(self.num_keys) if index not in first]
        Random(f"{seed}:questions").shuffle(left)
        size = self.num_queries
        return [left[start : start + size] for start in range(0, len(left) - size + 1, size)]


def _listed(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])}, and {keys[-1]}"
