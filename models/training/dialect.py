"""What a stage draws from: shares of key, value and noise kinds, and the wording of answers."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Self, TypeVar

Kind = TypeVar("Kind")


class KeyKind(StrEnum):
    """Where the keys of a sample come from."""

    POOL = "pool"
    ENGLISH_PAIR = "english_pair"
    ENGLISH = "english"
    PSEUDO_PAIR = "pseudo_pair"
    SHARED_PARTS = "shared_parts"


class NoiseKind(StrEnum):
    """What stands between the needles."""

    CYCLE = "cycle"
    SHUFFLED = "shuffled"
    FILLER = "filler"
    PROSE = "prose"
    JUMBLE = "jumble"


class NameKind(StrEnum):
    """Where the variables of a chain come from: the pool, or any five capitals."""

    POOL = "pool"
    LETTERS = "letters"


class ValueKind(StrEnum):
    """What a key is mapped to; the word is the one the prompts use."""

    NUMBER = "number"
    WORD = "word"
    UUID = "uuid"


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """Shares and switches of a stage's samples; the defaults are those of the last stages.

    `full_lists` asks for four keys or values whenever they fit, as RULER does; without it, for
    two to four. `answers_name_keys` words an answer "key: value"; `any_order` accepts the values
    of one key in any order. `line_share`: contexts whose units stand on lines of their own, as in
    RULER's noise; `example_share`: chains behind a solved example, and `open_end_share` those whose
    prompt ends in a space, as RULER's do; `full_chain_share`: chains of five names, as RULER's are.
    `asks_once`: each question of a sample is of another key or chain.
    """

    keys: Mapping[KeyKind, float] = field(
        default_factory=lambda: dict(zip(KeyKind, (0.3, 0.25, 0.1, 0.2, 0.15), strict=True))
    )
    noises: Mapping[NoiseKind, float] = field(
        default_factory=lambda: dict(zip(NoiseKind, (0.25, 0.2, 0.2, 0.25, 0.1), strict=True))
    )
    uuid_share: float = 0.12
    word_share: float = 0.18
    pool_word_share: float = 0.5
    full_lists: bool = True
    answers_name_keys: bool = True
    any_order: bool = True
    names: NameKind = NameKind.POOL
    line_share: float = 0.0
    example_share: float = 0.0
    open_end_share: float = 0.0
    full_chain_share: float = 0.0
    asks_once: bool = False

    def __post_init__(self) -> None:
        """Refuse shares that are no shares."""
        for name in (field_.name for field_ in fields(self) if field_.name.endswith("_share")):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"dialect.{name}={share} is no share; give 0 <= share <= 1")
        for name in ("keys", "noises"):
            if not sum(getattr(self, name).values()) > 0:
                raise ValueError(f"dialect.{name} has no positive share; name at least one kind")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """A dialect from plain values; `keys` and `noises` replace the default shares whole."""
        known = {item.name for item in fields(cls)}
        if not set(values) <= known:
            raise ValueError(
                f"unknown dialect keys {sorted(set(values) - known)}; know {sorted(known)}"
            )
        settings = dict(values)
        if "names" in settings:
            settings["names"] = NameKind(settings["names"])
        if "keys" in settings:
            settings["keys"] = {KeyKind(kind): share for kind, share in settings["keys"].items()}
        if "noises" in settings:
            settings["noises"] = {
                NoiseKind(kind): share for kind, share in settings["noises"].items()
            }
        return cls(**settings)


def happens(share: float, rng: random.Random) -> bool:
    """Whether something of that share happens; nothing is drawn where it cannot."""
    return share > 0 and rng.random() < share


def weighted(shares: Mapping[Kind, float], rng: random.Random) -> Kind:
    """One key of `shares`, drawn with its share as weight."""
    return rng.choices(list(shares), list(shares.values()))[0]
