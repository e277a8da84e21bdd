"""A task's prompts as token ids, split where the protocol splits them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from backends.base import Request
from harness.encoding import encode, encode_scored, ends_at, prefix_id
from harness.tasks.base import Task, TaskRequest


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

    @property
    def most_tokens(self) -> int:
        """Tokens that the longest request may store."""
        return max(item.request.most_tokens for item in self.items)

    @property
    def longest_rest(self) -> int:
        """Tokens of question and answer of one request, at most."""
        return max(item.request.most_tokens - item.request.num_context for item in self.items)

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
    items = []
    for number, source in enumerate(task.requests(tokenizer)):
        ids = _split(source, tokenizer)
        dense = protocol == "question_dense"
        request = Request(
            uid=source.uid,
            prompt_ids=tuple(ids.prompt),
            num_context=len(ids.prompt) - len(ids.scored[1:]) if dense else ids.num_context,
            max_new_tokens=source.max_new_tokens,
            stop_ids=stop_ids,
            temperature=temperature,
            seed=number,
            ends=ends_at(tokenizer, source.stop_strings),
            scored_ids=tuple(ids.scored),
        )
        items.append(Item(source, request))
    return Workload(task, tuple(items))


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


def _scored(continuation: str, tokenizer: Any, context: str | None) -> tuple[list[int], list[int]]:
    if context is None:
        return [prefix_id(tokenizer)], encode(tokenizer, continuation)
    return encode_scored(tokenizer, context, continuation)


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
