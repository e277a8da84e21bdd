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

    def draft(self, seed: str, counter_of: Callable[[Draft], Counter]) -> Draft:
        """See Generator."""
        rng = Random(seed)
        keys = distinct(self.num_keys, lambda: DRAW[self.keys](rng))
        values = distinct(self.num_keys * self.num_values, lambda: DRAW[self.values](rng))
        asked = self._asked(rng)
        values_of = [values[index :: self.num_keys] for index in range(self.num_keys)]
        needles = [
            needle(self.values, key, value)
            for key, own in zip(keys, values_of, strict=True)
            for value in own
        ]
        Random(self.shuffle_seed).shuffle(needles)
        query = _listed([keys[index] for index in asked])
        names, wording = self.values, NIAH
        if self.num_values * self.num_queries == 1:
            names, wording = names.removesuffix("s"), for_one_answer(NIAH)
        return Draft(
            head=wording.head.format(value_names=names),
            haystack=self.haystack.for_sample(seed),
            statements=tuple(needles),
            places_seed=f"{seed}:places",
            question=(wording.question + wording.answer_prefix).format(
                value_names=names, query=query
            ),
            references=tuple(value for index in asked for value in values_of[index]),
            metadata={"query": query, "keys": keys, "values": values},
        )

    def departures(self) -> Sequence[str]:
        """See Generator."""
        of_values = [] if self.values == self.original_values else [f"values={self.values}"]
        return [*super().departures(), *of_values]

    def _asked(self, rng: Random) -> list[int]:
        if self.num_queries == 1:
            return [rng.randrange(self.num_keys)]
        return rng.sample(range(self.num_keys), self.num_queries)


def _listed(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])}, and {keys[-1]}"
