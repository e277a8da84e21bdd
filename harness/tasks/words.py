"""The word lists that RULER draws its needle keys from (package wonderwords)."""

from functools import cache
from random import Random

from wonderwords import RandomWord


def random_key(rng: Random) -> str:
    """One RULER word key, `adjective-noun`, every pair equally likely."""
    return f"{rng.choice(_sorted_words('adjective'))}-{rng.choice(_sorted_words('noun'))}"


@cache
def _sorted_words(category: str) -> tuple[str, ...]:
    return tuple(sorted(set(RandomWord().filter(include_categories=[category]))))
