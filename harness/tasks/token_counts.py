"""Tokens of long texts from the tokens of their pieces, each of which is tokenised once."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from harness.tasks.base import Tokenizer

# Before a space, after a line's end, before a hyphen between words (not in a uuid, whose parts are
# hardly met again): where tokenizers cut.
_CUTS = re.compile(r"(?<=\S)(?= )|(?<=\n)(?=[^\n ])|(?<=[A-Za-z]{3})(?=-[A-Za-z]{3})")
_MOST_PIECES = 200_000
_BATCH_FROM = 64
# What a fast tokenizer and its wrapper must agree on before the wrapper is left out.
PROBES = ("a needle", "\nVAR ABCDE = 12345 ")


class RunningSum:
    """Sums of the first 0, 1, 2 ... terms; `terms(start, stop)` is read as far as it is asked."""

    def __init__(self, terms: Callable[[int, int], Iterable[int]]) -> None:
        self._terms = terms
        self._sums = [0]

    def upto(self, size: int) -> int:
        """The sum of the first `size` terms."""
        known = self._sums
        if size >= len(known):
            known[-1:] = accumulate(self._terms(len(known) - 1, size), initial=known[-1])
        return known[size]


class TokenCounts:
    """Counts tokens, exactly where the tokenizer cuts a text at least where pieces end.

    Whether it does is for the caller to check, by `whole` of some of the texts, and to keep in
    `is_exact` by task and first sample.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encode_all = _encoder(tokenizer)
        self._encode_whole = _whole_encoder(tokenizer)
        self._pieces: dict[str, int] = {}
        self._atoms: dict[str, int] = {}
        self._openings: dict[str, int] = {}
        self._around: dict[tuple[str, str], int] = {}
        self._kept: dict[int, tuple[Sequence[str], list[int]]] = {}
        self._running: dict[int, tuple[Sequence[str], RunningSum]] = {}
        self.is_exact: dict[tuple[str, int], bool] = {}

    def whole(self, text: str) -> int:
        """Tokens of a text, tokenised in one go, with what the tokenizer adds."""
        return self._encode_whole(text)

    def text(self, text: str) -> int:
        """Tokens of a text from those of its lines, with what the tokenizer adds."""
        opening, *lines = text.splitlines(keepends=True)
        if opening not in self._openings:
            self._forget_where_full(self._openings)
            self._openings[opening] = self.whole(opening)
        return self._openings[opening] + sum(self.each(lines))

    def lines(self, text: str) -> int:
        """Tokens of a text within a longer one, from those of its lines."""
        return sum(self.each(text.splitlines(keepends=True)))

    def each(self, pieces: Sequence[str]) -> list[int]:
        """Tokens of each of some pieces within a longer text."""
        known = self._pieces
        try:
            return list(map(known.__getitem__, pieces))
        except KeyError:
            self._forget_where_full(known)
            self._learn(set(pieces).difference(known))
        return list(map(known.__getitem__, pieces))

    def kept(self, pieces: Sequence[str]) -> list[int]:
        """Tokens of each of pieces that never change; kept with them."""
        if id(pieces) not in self._kept:
            self._kept[id(pieces)] = pieces, self.each(pieces)
        return self._kept[id(pieces)][1]

    def running(self, pieces: Sequence[str]) -> RunningSum:
        """Tokens of the first 0, 1, 2 ... of pieces that never change; kept with them."""
        if id(pieces) not in self._running:
            sums = RunningSum(lambda start, stop: self.each(pieces[start:stop]))
            self._running[id(pieces)] = pieces, sums
        return self._running[id(pieces)][1]

    def _learn(self, pieces: Iterable[str]) -> None:
        self._forget_where_full(self._atoms)
        atoms_of = {one: [one] if one[1:].isalpha() else _CUTS.split(one) for one in pieces}
        known = self._atoms
        new = {atom for atoms in atoms_of.values() for atom in atoms if atom not in known}
        known.update(self._counted(list(new)))
        for piece, atoms in atoms_of.items():
            self._pieces[piece] = sum(map(known.__getitem__, atoms))

    def _counted(self, texts: Sequence[str]) -> Iterator[tuple[str, int]]:
        around = [_neighbours(text) for text in texts]
        for before, after in set(around).difference(self._around):
            (self._around[before, after],) = self._encode_all([before + after])
        framed = [before + a + after for a, (before, after) in zip(texts, around, strict=True)]
        for text, ends, count in zip(texts, around, self._encode_all(framed), strict=True):
            yield text, count - self._around[ends]

    def _forget_where_full(self, known: dict[str, int]) -> None:
        if len(known) > _MOST_PIECES:
            known.clear()


def _neighbours(atom: str) -> tuple[str, str]:
    """What stands before and after an atom, as far as it may change the tokens of the atom."""
    return ("x" if atom[:1] in (" ", "-") else "\n", "A" if atom.endswith("\n") else "")


def _encoder(tokenizer: Tokenizer) -> Callable[[list[str]], list[int]]:
    """Token counts of many short texts, in one call where the tokenizer has one."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", tokenizer)
    batch = getattr(backend, "encode_batch_fast", None)
    if batch is None:
        return lambda texts: [len(tokenizer.encode(text)) for text in texts]

    def counts(texts: list[str]) -> list[int]:
        # A batch wakes threads, which takes longer than a few short texts.
        if len(texts) < _BATCH_FROM:
            return [len(backend.encode(text, add_special_tokens=False)) for text in texts]
        return [len(encoded) for encoded in batch(texts, add_special_tokens=False)]

    return counts


def _whole_encoder(tokenizer: Tokenizer) -> Callable[[str], int]:
    """Token counts of a long text, without the offsets that nobody asks for where that can be."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "encode_batch_fast"):
        return lambda text: len(tokenizer.encode(text))

    def num_tokens(text: str) -> int:
        return len(backend.encode_batch_fast([text])[0])

    same = all(num_tokens(probe) == len(tokenizer.encode(probe)) for probe in PROBES)
    return num_tokens if same else lambda text: len(tokenizer.encode(text))
