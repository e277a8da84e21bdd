"""RULER's variable tracking: a chain of assignments, every name of it asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from string import ascii_uppercase
from typing import ClassVar

from harness.tasks.drafts import Counter, Draft, Generator, largest_size
from harness.tasks.ruler_templates import VARIABLE_TRACKING

NUM_HOPS = 4
HEAD = VARIABLE_TRACKING.head
QUESTION = VARIABLE_TRACKING.question + VARIABLE_TRACKING.answer_prefix
EXAMPLE_TOKENS = 500


@dataclass(frozen=True, kw_only=True)
class VariableTracking(Generator):
    """One chain of `NUM_HOPS` assignments.

    `names`: "random" letters as in RULER, or the "pool" of names that the bundled model has seen.
    `example`: RULER's solved example, up to 500 tokens, before the prompt.
    `strip_prompt`: without the space at the end of RULER's prompt.
    A haystack joined by spaces has statements that end in a full stop, as RULER's essay form.
    """

    names: str
    example: bool
    strip_prompt: bool

    name_sources: ClassVar[tuple[str, ...]] = ("random", "pool")
    num_new_tokens: ClassVar[int] = VARIABLE_TRACKING.num_new_tokens

    def draft(self, seed: str, counter_of: Callable[[Draft], Counter]) -> Draft:
        """See Generator."""
        rng = Random(seed)
        names = self._draw_names(rng, num_letters=5, taken=())
        value = _draw_value(rng, taken="")
        draft = self._chain(names=names, value=value, places_seed=f"{seed}:places")
        if self.strip_prompt:
            draft = replace(draft, question=draft.question.rstrip())
        if self.example:
            draft = replace(draft, head=self._example(rng, draft, counter_of) + HEAD)
        return draft

    def departures(self) -> Sequence[str]:
        """See Generator."""
        of_names = [] if self.names == "random" else [f"vt_names={self.names}"]
        of_example = [] if self.example else ["vt_example=false"]
        of_end = ["strip_prompt=true"] if self.strip_prompt else []
        return [*super().departures(), *of_names, *of_example, *of_end]

    def _chain(self, *, names: Sequence[str], value: str, places_seed: str) -> Draft:
        return Draft(
            head=HEAD,
            haystack=self.haystack,
            statements=self._statements(names, value),
            places_seed=places_seed,
            question=QUESTION.format(query=value, num_names=len(names)),
            references=tuple(names),
            metadata={"query": value, "names": list(names)},
        )

    def _statements(self, names: Sequence[str], value: str) -> tuple[str, ...]:
        hops = [f"VAR {name} = VAR {source} " for source, name in pairwise(names)]
        statements = [f"VAR {names[0]} = {value}", *hops]
        if self.haystack.joiner == " ":
            statements = [f"{statement.strip()}." for statement in statements]
        return tuple(statements)

    def _example(self, rng: Random, asked: Draft, counter_of: Callable[[Draft], Counter]) -> str:
        names = self._draw_names(rng, num_letters=3, taken=asked.references)
        value = _draw_value(rng, taken=asked.metadata["query"])
        # The places are the same in every sample: RULER builds one example and renames it.
        solved = self._chain(names=names, value=value, places_seed="example:places")
        num_tokens_of = counter_of(solved)
        num_smallest = num_tokens_of(solved.smallest_size)
        size = largest_size(solved, num_tokens_of, max(EXAMPLE_TOKENS, num_smallest))
        return f"{solved.prompt(size)} {' '.join(names)}\n\n"

    def _draw_names(self, rng: Random, *, num_letters: int, taken: Sequence[str]) -> list[str]:
        drawn: dict[str, None] = {}
        while len(drawn) <= NUM_HOPS:
            name = _DRAW_NAME[self.names](rng, num_letters)
            if name not in taken:
                drawn[name] = None
        return list(drawn)


def _draw_value(rng: Random, *, taken: str) -> str:
    value = str(rng.randrange(10000, 99999))
    return value if value != taken else _draw_value(rng, taken=taken)


def _random_name(rng: Random, num_letters: int) -> str:
    return "".join(rng.choices(ascii_uppercase, k=num_letters))


def _pool_name(rng: Random, num_letters: int) -> str:
    return rng.choice(_name_pool())


@cache
def _name_pool() -> tuple[str, ...]:
    path = Path(__file__).parent / "data" / "vt_names.txt"
    return tuple(path.read_text(encoding="ascii").split())


_DRAW_NAME = {"random": _random_name, "pool": _pool_name}
