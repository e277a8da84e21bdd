"""What the generators of `random` draw, to the bit, from many of their 32-bit words at once."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from random import Random

import numpy as np

WORD_BITS = 32
_WORDS_AT_ONCE = 512


class Distinct:
    """What `rng.randrange(count)` would give time and again, each number where it comes first."""

    def __init__(self, rng: Random, count: int) -> None:
        assert count.bit_length() <= WORD_BITS, count
        self._rng, self._count = rng, count
        self._drawn: dict[int, None] = {}
        self._order: list[int] = []

    def part(self, start: int, stop: int) -> Sequence[int]:
        """The numbers from one place to another; there must be as many."""
        assert stop <= self._count, stop
        while len(self._order) < stop:
            drawn_N = _words(self._rng, _WORDS_AT_ONCE) >> (WORD_BITS - self._count.bit_length())
            self._drawn.update(dict.fromkeys(drawn_N[drawn_N < self._count].tolist()))
            self._order = list(self._drawn)
        return self._order[start:stop]


def permuted(rng: Random, count: int) -> Iterator[int]:
    """What `rng.sample(range(count), count)` would give, one after the other."""
    left, words = list(range(count)), _words_of(rng)
    for size in range(count, 0, -1):
        shift = WORD_BITS - size.bit_length()
        while (at := next(words) >> shift) >= size:
            pass
        yield left[at]
        left[at] = left[size - 1]


@lru_cache(maxsize=64)
def shuffled_order(size: int, seed: int) -> list[int]:
    """The numbers below `size` as `Random(seed).shuffle` would leave them."""
    order, words = list(range(size)), iter(_first_words(seed, -(-size // 1024)))
    for last in range(size - 1, 0, -1):
        shift = WORD_BITS - (last + 1).bit_length()
        while (at := next(words) >> shift) > last:
            pass
        order[last], order[at] = order[at], order[last]
    return order


@lru_cache(maxsize=8)
def _first_words(seed: int, num_thousands: int) -> list[int]:
    # Twice as many as are used in the mean: a word is refused at most half of the times.
    """Words enough to shuffle so many thousands of numbers."""
    return _words(Random(seed), 4096 * num_thousands).tolist()


def _words_of(rng: Random) -> Iterator[int]:
    while True:
        yield from _words(rng, _WORDS_AT_ONCE).tolist()


def _words(rng: Random, count: int) -> "np.ndarray[tuple[int], np.dtype[np.uint32]]":
    return np.frombuffer(rng.getrandbits(WORD_BITS * count).to_bytes(4 * count, "little"), "<u4")
