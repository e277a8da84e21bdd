"""What a model brought to attention for one sequence: recorded once, taken by other engines.

Under a protocol that prefills the context densely, every algorithm starts from the same queries,
keys and values; a study that compares many of them computes these once.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Brought(NamedTuple):
    """Queries [T, H, D], rotated keys and values [T, K, D] of one layer."""

    query_THD: Tensor
    key_TKD: Tensor
    value_TKD: Tensor

    def part(self, start: int, stop: int) -> "Brought":
        """Tokens start .. stop - 1."""
        return Brought(*(one[start:stop] for one in self))


class Context(NamedTuple):
    """The leading tokens of one sequence, layer by layer; scale: of the logits."""

    layers: tuple[Brought, ...]
    scale: float

    @property
    def num_tokens(self) -> int:
        """Tokens that are here."""
        return len(self.layers[0].query_THD)

    def part(self, start: int, stop: int) -> "Context":
        """Tokens start .. stop - 1."""
        return self._replace(layers=tuple(layer.part(start, stop) for layer in self.layers))


class Tape:
    """Records all that one sequence brings to attention, from its first token on."""

    def __init__(self) -> None:
        """Nothing was heard."""
        self._parts: dict[int, list[Brought]] = {}
        self._scale = 1.0

    def add(
        self, layer: int, query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, scale: float
    ) -> None:
        """The next tokens of a layer."""
        self._scale = scale
        parts = (one.clone() for one in (query_THD, key_TKD, value_TKD))
        self._parts.setdefault(layer, []).append(Brought(*parts))

    def take(self) -> Context:
        """Everything that was heard so far; then hear the next sequence."""
        heard, self._parts = self._parts, {}
        return Context(
            tuple(
                Brought(*(torch.cat(each) for each in zip(*heard[layer], strict=True)))
                for layer in sorted(heard)
            ),
            self._scale,
        )
