"""Prompts that models are shown: a task's own with its answers, or pieces of a text."""

import random
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.tasks.base import Task

# Rows before the question, whose attention counts too.
NUM_CONTEXT_ROWS = 32
MOST_QUESTION_ROWS = 96
LEAST_ROW = 128


@dataclass(frozen=True)
class Prompt:
    """Token ids, and the rows whose attention is looked at, int64 [M]."""

    ids: tuple[int, ...]
    rows_M: Tensor


def task_prompts(
    task: Any, tokenizer: Any, *, seed: int, num_prompts: int, lengths: tuple[int, ...]
) -> list[Prompt]:
    """Prompts of a task under another seed than its own, of these lengths in turn.

    A right answer follows each; rows are those of question and answer, and some of the context.
    """
    assert seed != task.seed, "what is fitted is not fitted to what it is judged by"
    each = -(-num_prompts // len(lengths))
    tasks = [replace(task, seed=seed, length=length, num_samples=each) for length in lengths]
    # Not one task after the other: few prompts are of all tasks too.
    order = random.Random(seed)
    shuffled = [order.sample(found, each) for found in (_requests(one, tokenizer) for one in tasks)]
    turns = islice(chain.from_iterable(zip(*shuffled, strict=True)), num_prompts)
    return [
        Prompt(one.ids, _rows(len(one.ids), one.num_context, NUM_CONTEXT_ROWS, order))
        for one in turns
    ]


def text_prompts(
    path: Path, tokenizer: Any, *, seed: int, num_prompts: int, length: int
) -> list[Prompt]:
    """Pieces of a text file, at random places; rows are spread over each."""
    ids, order = tokenizer.encode(path.read_text(encoding="utf-8")), random.Random(seed)
    if len(ids) < length:
        raise ValueError(
            f"--text={str(path)!r} has {len(ids)} tokens, prompts have task.length={length}; give "
            "a longer text, or lower task.length"
        )
    starts = [order.randrange(len(ids) - length + 1) for _ in range(num_prompts)]
    rows = NUM_CONTEXT_ROWS + MOST_QUESTION_ROWS
    return [
        Prompt(tuple(ids[start : start + length]), _rows(length, length, rows, order))
        for start in starts
    ]


class _Request(NamedTuple):
    """Ids of prompt and answer, and how many of them come before the question."""

    ids: tuple[int, ...]
    num_context: int


def _requests(task: Task, tokenizer: Any) -> list[_Request]:
    """All requests of a task, each with its right answer."""
    found = []
    for request in task.requests(tokenizer):
        answer = "".join(f" {reference}" for reference in request.references)
        ids = tokenizer.encode(request.context + request.question + answer)
        found.append(_Request(tuple(ids), len(tokenizer.encode(request.context))))
    return found


def _rows(num_tokens: int, num_context: int, some: int, order: random.Random) -> Tensor:
    """The last rows of the prompt, and `some` of its context."""
    context = range(min(LEAST_ROW, num_context - 1), num_context)
    chosen = sorted(order.sample(context, min(some, len(context))))
    last = range(max(num_context, num_tokens - MOST_QUESTION_ROWS), num_tokens)
    return torch.tensor([*chosen, *last])
