"""A task's prompts as token ids, split where the protocol splits them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from backends.base import Request
from harness.tasks.base import Task, TaskRequest


@dataclass(frozen=True)
class Item:
    """A request as the task knows it, and as the backend does."""

    source: TaskRequest
    request: Request


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
        prompt_ids, num_context = _split(source, tokenizer)
        if protocol == "question_dense":
            num_context = len(prompt_ids)
        request = Request(
            uid=source.uid,
            prompt_ids=tuple(prompt_ids),
            num_context=num_context,
            max_new_tokens=source.max_new_tokens,
            stop_ids=stop_ids,
            temperature=temperature,
            seed=number,
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


def _split(source: TaskRequest, tokenizer: Any) -> tuple[list[int], int]:
    """Prompt ids, and how many of them are the context's own."""
    prompt_ids = tokenizer.encode(source.context + source.question)
    context_ids = tokenizer.encode(source.context)
    return prompt_ids, _common_prefix(prompt_ids, context_ids)


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
