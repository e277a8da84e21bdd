"""LongBench (arXiv:2308.14508): questions about long texts, 21 tasks, and 13 of them by length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from harness.tasks import checks
from harness.tasks.base import Task, TaskRequest, Tokenizer
from harness.tasks.chat import NO_CHAT, Turn, user_turn
from harness.tasks.longbench_data import Sample, from_rows, local_rows, read_lines
from harness.tasks.longbench_hub import REPOSITORY, hub_rows
from harness.tasks.longbench_prompts import Template, templates
from harness.tasks.longbench_scores import best_score, require
from harness.tasks.longbench_table import EVEN, SUBSETS, TASKS, bucket, subset_of

# What the original leaves of 4096 tokens: its prompts take 3500, its longest answers 512.
HEADROOM = 596
SMALLEST_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class LongBench(Task):
    """The benchmark's own prompts, truncation and scores, over a folder of JSON lines or the hub.

    `length` is of prompts alone, as in the original: longer ones lose their middle; null is the
    model's less HEADROOM. `max_new_tokens` null is each task's own number, `num_samples` null all
    of a task. `chat_template` wraps prompts, but for the six tasks that the original does not.
    Requests of LongBench-E are named after their task and their group of lengths. What is not
    original stands in `metadata["variant"]`.
    """

    tasks: Sequence[str]
    path: str | None
    download: bool
    prompts: str | None
    length: int | None
    max_new_tokens: int | None
    num_samples: int | None
    chat_template: bool

    def __post_init__(self) -> None:
        """Raise ValueError on a setting out of range."""
        checks.names_among("task.tasks", self.tasks, TASKS)
        for key in ("path", "prompts"):
            checks.text_or_none(f"task.{key}", getattr(self, key))
        for key in ("max_new_tokens", "num_samples"):
            if (value := getattr(self, key)) is not None:
                checks.at_least(f"task.{key}", value, 1)
        if self.length is not None:
            checks.at_least("task.length", self.length, SMALLEST_LENGTH)
        checks.flag("task.download", self.download)
        checks.flag("task.chat_template", self.chat_template)

    def limited_to(self, max_tokens: int) -> Self:
        """See Task."""
        if self.length is None:
            return replace(self, length=max(SMALLEST_LENGTH, max_tokens - HEADROOM))
        rest = max(self._num_new_tokens(subset_of(task)) for task in self.tasks)
        if self.length + rest > max_tokens:
            raise ValueError(
                f"task.length={self.length}: with answers of up to {rest} tokens more than the "
                f"{max_tokens} of the model; lower it to {max_tokens - rest}, or use null"
            )
        return self

    def requests(self, tokenizer: Tokenizer) -> Sequence[TaskRequest]:
        """See Task; the first `num_samples` of each task, in the order of its data."""
        names = list(dict.fromkeys(subset_of(task) for task in self.tasks))
        require([SUBSETS[name].metric for name in names])
        of_names = templates(self.prompts, names)
        chats = self.chat_template and any(SUBSETS[name].chat for name in names)
        turn = user_turn(tokenizer, "task.chat_template") if chats else NO_CHAT
        samples = self._samples(of_names)
        return tuple(
            self._request(task, number, sample, of_names[subset_of(task)], turn, tokenizer)
            for task in self.tasks
            for number, sample in enumerate(samples[task])
        )

    def score(self, request: TaskRequest, answer: str) -> float:
        """The task's own, in [0, 1]: the benchmark reports means times 100."""
        subset = SUBSETS[request.metadata["subset"]]
        return best_score(
            subset.metric,
            answer,
            request.references,
            request.metadata["all_classes"],
            first_line=subset.first_line,
        )

    def _samples(self, of_names: Mapping[str, Template]) -> dict[str, list[Sample]]:
        most = self.num_samples
        if self.path is not None:
            files = local_rows(Path(self.path), self.tasks)
            return {
                task: read_lines(path, task, of_names[subset_of(task)], most)
                for task, path in files.items()
            }
        tables = {task: hub_rows(task, download=self.download) for task in self.tasks}
        return {
            task: from_rows(rows, f"{REPOSITORY} {task}", task, of_names[subset_of(task)], most)
            for task, rows in tables.items()
        }

    def _num_new_tokens(self, name: str) -> int:
        return self.max_new_tokens or SUBSETS[name].num_new_tokens

    def _request(
        self,
        task: str,
        number: int,
        sample: Sample,
        template: Template,
        turn: Turn,
        tokenizer: Tokenizer,
    ) -> TaskRequest:
        name = subset_of(task)
        turn = turn if SUBSETS[name].chat else NO_CHAT
        context, question = template.head + sample.context, template.question(sample.asked)
        context, question, num_cut = cut_middle(context, question, tokenizer, self.length)
        group = bucket(sample.length) if sample.length is not None else None
        return TaskRequest(
            uid=f"longbench-{task}-{number}",
            task=f"{task}_{group}" if task.endswith(EVEN) else task,
            context=turn.before + context,
            question=question + turn.after,
            references=sample.answers,
            max_new_tokens=self._num_new_tokens(name),
            metadata={
                "subset": name,
                "all_classes": sample.all_classes,
                "length": sample.length,
                "group": group,
                "tokens_cut": num_cut,
                "variant": ", ".join(self._departures(name, template)) or "original",
            },
        )

    def _departures(self, name: str, template: Template) -> list[str]:
        num_new_tokens = self._num_new_tokens(name)
        of_length = num_new_tokens != SUBSETS[name].num_new_tokens
        return [
            *([] if template.original else ["prompt"]),
            *([f"max_new_tokens={num_new_tokens}"] if of_length else []),
        ]


def cut_middle(
    context: str, question: str, tokenizer: Tokenizer, length: int | None
) -> tuple[str, str, int]:
    """A prompt without its middle, split again where the question begins, and the tokens it lost.

    As in the original, the first and the last half of `length` tokens become text again.
    """
    prompt = context + question
    token_ids = tokenizer.encode(prompt)
    if length is None or len(token_ids) <= length:
        return context, question, 0
    half = length // 2
    first, last = (
        tokenizer.decode(part, skip_special_tokens=True)
        for part in (token_ids[:half], token_ids[-half:])
    )
    # The cut may run through the question, and decoding need not give the same text.
    kept = next((size for size in range(len(question)) if last.endswith(question[size:])), None)
    question = "" if kept is None else question[kept:]
    return first + last.removesuffix(question), question, len(token_ids) - 2 * half
