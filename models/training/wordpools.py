"""Made-up words: the pools that are one token each, and free spellings that are several."""

import random
import string
from dataclasses import dataclass

NUM_KEYS = 800
NUM_FILLERS = 400
NUM_VARIABLES = 400
NUM_CODES = 400

POOL_ONSETS = [*"bcdfghjklmnprstvwz", "br", "cr", "dr", "fl", "gr", "pl", "sl", "st", "tr"]
POOL_VOWELS = [*"aeiou", "ai", "ea", "oo"]
POOL_ENDINGS = ["", "n", "r", "s", "t", "l"]
FREE_ONSETS = [*POOL_ONSETS, "sh", "th"]
FREE_VOWELS = [*POOL_VOWELS, "ou", "er", "ar", "in", "on"]
FREE_ENDINGS = [*POOL_ENDINGS, "ty", "ing"]


@dataclass(frozen=True, kw_only=True)
class WordPools:
    """Words that are one token of the vocabulary each."""

    keys: tuple[str, ...]
    fillers: tuple[str, ...]
    variables: tuple[str, ...]
    codes: tuple[str, ...]


def word_pools(seed: int = 7) -> WordPools:
    """The pools of the shipped vocabulary; another seed gives another vocabulary."""
    rng = random.Random(seed)
    words = _distinct_pool_words(rng, NUM_KEYS + NUM_FILLERS)
    variables = _distinct_letter_words(rng, NUM_VARIABLES, length=5)
    codes = [word.lower() for word in _distinct_letter_words(rng, 2 * NUM_CODES, length=6)]
    return WordPools(
        keys=tuple(words[:NUM_KEYS]),
        fillers=tuple(words[NUM_KEYS:]),
        variables=tuple(variables),
        codes=tuple([word for word in codes if word not in set(words)][:NUM_CODES]),
    )


def pseudo_word(rng: random.Random) -> str:
    """One pronounceable word of one to three syllables, in no vocabulary on purpose."""
    num_syllables = rng.choice([1, 2, 2, 3])
    syllables = [rng.choice(FREE_ONSETS) + rng.choice(FREE_VOWELS) for _ in range(num_syllables)]
    return "".join(syllables) + rng.choice(FREE_ENDINGS)


def _distinct_pool_words(rng: random.Random, num_words: int) -> list[str]:
    words: dict[str, None] = {}
    while len(words) < num_words:
        num_syllables = rng.choice([2, 2, 3])
        syllables = [
            rng.choice(POOL_ONSETS) + rng.choice(POOL_VOWELS) for _ in range(num_syllables)
        ]
        words["".join(syllables) + rng.choice(POOL_ENDINGS)] = None
    return list(words)


def _distinct_letter_words(rng: random.Random, num_words: int, *, length: int) -> list[str]:
    words: set[str] = set()
    while len(words) < num_words:
        words.add("".join(rng.choice(string.ascii_uppercase) for _ in range(length)))
    return sorted(words)
