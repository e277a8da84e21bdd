"""The word lists that RULER draws from (package wonderwords)."""

from functools import cache
from random import Random

from wonderwords import RandomWord


def random_key(rng: Random) -> str:
    """One RULER word key, `adjective-noun`, every pair equally likely."""
    return f"{rng.choice(_sorted_words('adjective'))}-{rng.choice(_sorted_words('noun'))}"


@cache
def _sorted_words(category: str) -> tuple[str, ...]:
    return tuple(sorted(set(RandomWord().filter(include_categories=[category]))))


@cache
def all_words() -> tuple[str, ...]:
    """Every noun, adjective and verb, in the order of the alphabet."""
    categories = ("noun", "adjective", "verb")
    return tuple(sorted({word for category in categories for word in _sorted_words(category)}))
