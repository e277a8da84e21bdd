"""A task's prompts as token ids, split where the protocol splits them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from backends.base import Request
from harness.encoding import encode, encode_scored, ends_at, prefix_id
from harness.tasks.base import Task, TaskRequest
from harness.tasks.questions import chains


@dataclass(frozen=True)
class Item:
    """A request as the task knows it, and as the backend does."""

    source: TaskRequest
    request: Request

    @property
    def prompt_sha256(self) -> str:
        """SHA-256 of the text of the prompt."""
        return hashlib.sha256((self.source.context + self.source.question).encode()).hexdigest()


@dataclass(frozen=True)
class Workload:
    """All requests of a run, in order."""

    task: Task
    items: tuple[Item, ...]
    num_cut: int = 0

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know of the task, and of what was done to its prompts."""
        of_cut = (
            f"{self.num_cut} of {len(self.items)} prompts lost their beginning to fit the model"
        )
        return [*self.task.notes, *([of_cut] if self.num_cut else [])]

    @property
    def most_context(self) -> int:
        """Tokens that a model must take at once: a scored prompt holds its answer."""
        requests = (item.request for item in self.items)
        return max(one.most_tokens - bool(one.scored_ids) for one in requests)

    @property
    def groups(self) -> tuple[tuple[Item, ...], ...]:
        """Requests by context: those that are asked of one come one after the other."""
        by_uid = {item.source.uid: item for item in self.items}
        asked = chains(item.source for item in self.items)
        return tuple(tuple(by_uid[source.uid] for source in chain) for chain in asked)

    @property
    def most_tokens(self) -> int:
        """Tokens that the longest request may store."""
        return max(item.request.most_tokens for item in self.items)

    @property
    def longest_rest(self) -> int:
        """Tokens of one request behind those that an evictor has seen when it acts, at most."""
        return max(item.request.most_tokens - item.request.num_ended for item in self.items)

    @property
    def longest_question(self) -> int:
        """Question tokens of one request, at most."""
        return max(len(item.request.prompt_ids) - item.request.num_context for item in self.items)


def make_workload(
    task: Task,
    tokenizer: Any,
    *,
    protocol: Literal["question_sparse", "question_dense"],
    temperature: float,
    stop_ids: frozenset[int],
) -> Workload:
    """Tokenise everything before the clock starts."""
    items: list[Item] = []
    num_cut = 0
    for chain in chains(task.requests(tokenizer)):
        whole = [_split(source, tokenizer) for source in chain]
        split = [_fitted(*pair) for pair in zip(whole, chain, strict=True)]
        num_cut += sum(
            len(ids.prompt) < len(uncut.prompt) for ids, uncut in zip(split, whole, strict=True)
        )
        num_shared = _num_shared(split) if len(chain) > 1 else 0
        for source, ids in zip(chain, split, strict=True):
            dense = protocol == "question_dense"
            sparse_from = num_shared or ids.num_context
            request = Request(
                uid=source.uid,
                prompt_ids=tuple(ids.prompt),
                num_context=len(ids.prompt) - len(ids.scored[1:]) if dense else sparse_from,
                max_new_tokens=source.max_new_tokens,
                stop_ids=stop_ids,
                temperature=temperature,
                seed=len(items),
                ends=ends_at(tokenizer, source.stop_strings),
                scored_ids=tuple(ids.scored),
                follows=source.follows,
                num_shared=num_shared,
            )
            items.append(Item(source, request))
    return Workload(task, tuple(items), num_cut)


def warmup_request(workload: Workload, num_tokens: int, vocab_size: int) -> Request:
    """A prompt of random tokens, which no measured request can share a prefix with by design."""
    like = workload.items[0].request
    generator = torch.Generator().manual_seed(0)
    size = (min(num_tokens, len(like.prompt_ids)),)
    ids = torch.randint(0, vocab_size, size, generator=generator).tolist()
    return Request(
        uid="warmup",
        prompt_ids=tuple(ids),
        num_context=max(0, len(ids) - workload.longest_question),
        max_new_tokens=min(8, like.max_new_tokens),
        stop_ids=frozenset(),
    )


class _Ids(NamedTuple):
    """Ids of a prompt, how many of them are the context's own, and those that are scored."""

    prompt: list[int]
    num_context: int
    scored: list[int]


def _split(source: TaskRequest, tokenizer: Any) -> _Ids:
    text = source.context + source.question
    if source.continuation is None:
        asked = prompt = encode(tokenizer, text)
        scored: list[int] = []
    else:
        asked, scored = _scored(source.continuation, tokenizer, None if source.is_text else text)
        prompt = [*asked, *scored[:-1]]
    if source.question_tokens:
        return _Ids(prompt, max(0, len(asked) - source.question_tokens), scored)
    return _Ids(prompt, _common_prefix(asked, encode(tokenizer, source.context)), scored)


def _fitted(ids: _Ids, source: TaskRequest) -> _Ids:
    """The last ids of a prompt, as many as leave room for the answer."""
    if source.most_tokens is None:
        return ids
    # The last of the scored ids is no part of the prompt.
    room = source.most_tokens - (0 if ids.scored else source.max_new_tokens)
    if room < max(1, len(ids.scored)):
        raise ValueError(
            f"task.max_length={source.most_tokens}: {source.uid} has an answer of "
            f"{len(ids.scored) or source.max_new_tokens} tokens and no room left for a prompt"
        )
    num_cut = max(0, len(ids.prompt) - room)
    return ids._replace(prompt=ids.prompt[num_cut:], num_context=max(0, ids.num_context - num_cut))


def _num_shared(asked: Sequence[_Ids]) -> int:
    """Leading tokens that all prompts on a context have, none of them of a question."""
    first = asked[0].prompt
    alike = min(_common_prefix(first, ids.prompt) for ids in asked)
    return min(alike, *(ids.num_context for ids in asked))


def _scored(continuation: str, tokenizer: Any, context: str | None) -> tuple[list[int], list[int]]:
    if context is None:
        return [prefix_id(tokenizer)], encode(tokenizer, continuation)
    return encode_scored(tokenizer, context, continuation)


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
