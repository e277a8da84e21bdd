"""Tokens of long texts from the tokens of their pieces, each of which is tokenised once."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from harness.tasks.base import Tokenizer

# Before a space, between a letter or digit and a hyphen, after a line's end: where tokenizers cut.
_CUTS = re.compile(r"(?<=\S)(?= )|(?<=[A-Za-z0-9])(?=-[A-Za-z0-9])|(?<=\n)(?=[^\n ])")
_MOST_PIECES = 200_000
_FEW_ATOMS = 6
_BATCH_FROM = 64


class TokenCounts:
    """Counts tokens, exactly where the tokenizer cuts a text at least where pieces end.

    Whether it does is for the caller to check, by `whole` of some of the texts.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._encode_all = _encoder(tokenizer)
        self._pieces: dict[str, int] = {}
        self._atoms: dict[str, int] = {}
        self._wholes: dict[str, int] = {}
        self._around: dict[tuple[str, str], int] = {}

    def whole(self, text: str) -> int:
        """Tokens of a text, tokenised in one go, with what the tokenizer adds."""
        return len(self._tokenizer.encode(text))

    def text(self, text: str) -> int:
        """Tokens of a text from those of its lines."""
        return self.joined(text.splitlines(keepends=True))

    def joined(self, pieces: Sequence[str]) -> int:
        """Tokens of the pieces put together, with what the tokenizer adds."""
        first, *lines = pieces[0].splitlines(keepends=True)
        rest = [*lines, *pieces[1:]]
        if first not in self._wholes:
            self._forget_where_full(self._wholes)
            self._wholes[first] = self.whole(first)
        try:
            return self._wholes[first] + sum(map(self._pieces.__getitem__, rest))
        except KeyError:
            self._forget_where_full(self._pieces)
            self._learn(set(rest).difference(self._pieces))
        return self._wholes[first] + sum(map(self._pieces.__getitem__, rest))

    def _learn(self, pieces: Iterable[str]) -> None:
        atoms_of = {piece: _CUTS.split(piece) for piece in pieces}
        atoms = {atom for atoms in atoms_of.values() for atom in atoms}.difference(self._atoms)
        if len(self._atoms) > _MOST_PIECES:
            self._atoms.clear()
            atoms = {atom for atoms in atoms_of.values() for atom in atoms}
        # Where most is new, as in lines of uuids, whole pieces are faster.
        if len(atoms) > len(atoms_of) * _FEW_ATOMS:
            self._pieces.update(self._counted(list(atoms_of)))
            return
        self._atoms.update(self._counted(list(atoms)))
        for piece, own in atoms_of.items():
            self._pieces[piece] = sum(map(self._atoms.__getitem__, own))

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
