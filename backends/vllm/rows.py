"""Which rows of a step of vLLM's scheduler take which way: context, question, answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one step of the engine may hold, and a sequence."""

    num_sequences: int
    step_tokens: int
    max_tokens: int


class Member(NamedTuple):
    """The rows of one request in a step: tokens stored .. stored + new - 1 of its sequence.

    num_context: leading tokens that are computed densely; num_prompt: those of the prompt. What
    follows, vLLM computes once more when it has preempted the request.
    """

    stored: int
    new: int
    num_context: int
    num_prompt: int


class Piece(NamedTuple):
    """Consecutive rows of the request in place `slot` of the batch."""

    slot: int
    stored: int
    num_rows: int
    is_question: bool
    ends_context: bool


@dataclass(frozen=True)
class Rows:
    """decode: places in the batch whose one row is the token that was generated last.

    order_N: rows of the step, int64, those of `decode` first and then the pieces', None where they
    lie so.
    """

    decode: tuple[int, ...]
    pieces: tuple[Piece, ...]
    order_N: Tensor | None

    @property
    def num_rows(self) -> int:
        """All rows."""
        return len(self.decode) + sum(piece.num_rows for piece in self.pieces)

    @property
    def num_chosen(self) -> int:
        """Rows for which an algorithm chooses what they read."""
        return len(self.decode) + sum(one.num_rows for one in self.pieces if one.is_question)


def sort_rows(members: Sequence[Member]) -> Rows:
    """Divide the rows of a step, which lie request by request."""
    starts = [0]
    for member in members:
        starts.append(starts[-1] + member.new)
    decode = tuple(slot for slot, member in enumerate(members) if _answers(member))
    pieces = tuple(
        piece
        for slot, member in enumerate(members)
        if not _answers(member)
        for piece in _pieces(slot, member)
    )
    order = [starts[slot] for slot in decode]
    for slot, stored, num_rows, *_ in pieces:
        first = starts[slot] + stored - members[slot].stored
        order += range(first, first + num_rows)
    assert len(order) == starts[-1], (members, order)
    lies_so = order == list(range(len(order)))
    return Rows(decode, pieces, None if lies_so else torch.tensor(order))


def _answers(member: Member) -> bool:
    return member.new == 1 and member.stored >= member.num_prompt


def _pieces(slot: int, member: Member) -> list[Piece]:
    """The context's part, then that of question and answer."""
    stop = member.stored + member.new
    middle = min(max(member.stored, member.num_context), stop)
    ends = middle == member.num_context
    pieces = [
        Piece(slot, member.stored, middle - member.stored, False, ends),
        Piece(slot, middle, stop - middle, True, False),
    ]
    return [piece for piece in pieces if piece.num_rows]
