"""RULER (arXiv:2404.06654): synthetic look-ups in a context of a chosen length."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from harness.tasks import checks
from harness.tasks.base import Task, TaskRequest, Tokenizer
from harness.tasks.drafts import Counter, Draft, Generator, largest_size
from harness.tasks.haystacks import Haystack, Noise, Prose, SpacedNoise
from harness.tasks.niah import Niah
from harness.tasks.questions import chained, check_questions
from harness.tasks.string_match import match_all
from harness.tasks.variable_tracking import VariableTracking

TASKS = ("niah_single_1", "niah_multikey_1", "vt")
HAYSTACKS = ("default", "noise", "prose")
VT_NOISE: Mapping[str, Haystack] = {"newline": Noise(), "space": SpacedNoise()}
SMALLEST_LENGTH = 128
# Of niah_multikey_1.
ORIGINAL_KEYS = 4


@dataclass(frozen=True, kw_only=True)
class Ruler(Task):
    """Prompts of RULER's tasks, to the byte where the settings are the original ones.

    `length` counts prompt and new tokens, as in RULER; a prompt is short of it by less than a
    noise line, or by a few words of prose. `max_new_tokens` null is each task's own number.
    `haystack` "default" is each task's own, but for the essays of niah_multikey_1, which may not
    be redistributed: the bundled prose stands for them. `vt_joiner` holds for the noise haystack.
    `strip_prompt` strips the end of the prompt: RULER's vt prompt ends in a space, which most
    tokenizers attach to the next word. `num_keys` are hidden by niah_multikey_1. What is not
    original stands in `metadata["variant"]`.
    """

    tasks: Sequence[str]
    length: int
    max_new_tokens: int | None
    num_samples: int
    seed: int
    haystack: str
    values: str
    vt_names: str
    vt_example: bool
    vt_joiner: str
    strip_prompt: bool
    num_keys: int = ORIGINAL_KEYS
    _num_questions: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError on a setting out of range."""
        checks.names_among("task.tasks", self.tasks, TASKS)
        checks.at_least("task.length", self.length, SMALLEST_LENGTH)
        if self.max_new_tokens is not None:
            checks.at_least("task.max_new_tokens", self.max_new_tokens, 1)
        checks.at_least("task.num_samples", self.num_samples, 1)
        checks.at_least("task.seed", self.seed, 0)
        checks.one_of("task.haystack", self.haystack, HAYSTACKS)
        checks.one_of("task.values", self.values, Niah.value_names)
        checks.one_of("task.vt_names", self.vt_names, VariableTracking.name_sources)
        checks.flag("task.vt_example", self.vt_example)
        checks.one_of("task.vt_joiner", self.vt_joiner, VT_NOISE)
        checks.flag("task.strip_prompt", self.strip_prompt)
        checks.at_least("task.num_keys", self.num_keys, 1)

    def requests(self, tokenizer: Tokenizer) -> Sequence[TaskRequest]:
        """See Task; sample i of a task is the same however many samples and tasks are asked for."""

        def counter_of(draft: Draft) -> Counter:
            return lambda size: len(tokenizer.encode(draft.prompt(size)))

        generators = self._generators()
        drafts = {task: self._drafts(task, generators[task], counter_of) for task in self.tasks}
        self._check_length(drafts, generators, counter_of)
        return tuple(
            request
            for task in self.tasks
            for index, asked in enumerate(drafts[task])
            for request in self._asked(task, index, generators[task], asked, counter_of)
        )

    def asking(self, num_questions: int) -> Self:
        """See Task."""
        check_questions(num_questions, self.tasks, self._generators())
        return replace(self, _num_questions=num_questions)

    def score(self, request: TaskRequest, answer: str) -> float:
        """RULER's string_match_all of one sample: the fraction of references in the answer."""
        return match_all(answer, request.references)

    def _generators(self) -> dict[str, Generator]:
        haystacks = {"noise": Noise(), "essay": Prose(), "prose": Prose()}
        vt_haystacks = {**haystacks, "noise": VT_NOISE[self.vt_joiner]}
        default = self.haystack == "default"
        return {
            "niah_single_1": Niah(
                haystack=haystacks["noise" if default else self.haystack],
                original_haystack="haystack=noise",
                num_keys=1,
                values=self.values,
                shuffle_seed=self.seed,
            ),
            "niah_multikey_1": Niah(
                haystack=haystacks["essay" if default else self.haystack],
                original_haystack="haystack=essay",
                num_keys=self.num_keys,
                values=self.values,
                shuffle_seed=self.seed,
            ),
            "vt": VariableTracking(
                haystack=vt_haystacks["noise" if default else self.haystack],
                original_haystack="haystack=noise",
                names=self.vt_names,
                example=self.vt_example,
                strip_prompt=self.strip_prompt,
            ),
        }

    def _drafts(
        self, task: str, generator: Generator, counter_of: Callable[[Draft], Counter]
    ) -> list[list[Draft]]:
        """A draft for each question of each sample."""
        seeds = [f"{self.seed}:{task}:{index}" for index in range(self.num_samples)]
        return [generator.drafts(seed, counter_of, self._num_questions) for seed in seeds]

    def _num_new_tokens(self, generator: Generator) -> int:
        return self.max_new_tokens or generator.num_new_tokens

    def _check_length(
        self,
        drafts: Mapping[str, Sequence[Sequence[Draft]]],
        generators: Mapping[str, Generator],
        counter_of: Callable[[Draft], Counter],
    ) -> None:
        smallest = max(
            counter_of(draft)(draft.smallest_size) + self._num_new_tokens(generators[task])
            for task in self.tasks
            for asked in drafts[task]
            for draft in asked
        )
        if self.length < smallest:
            raise ValueError(
                f"task.length={self.length}: too short for the prompts and new tokens of "
                f"{', '.join(self.tasks)}; the smallest that fits is {smallest}"
            )

    def _asked(
        self,
        task: str,
        index: int,
        generator: Generator,
        drafts: Sequence[Draft],
        counter_of: Callable[[Draft], Counter],
    ) -> list[TaskRequest]:
        """The questions of one context, as large as the longest of them allows."""
        limit = self.length - self._num_new_tokens(generator)
        size = min(largest_size(draft, counter_of(draft), limit) for draft in drafts)
        return chained([self._request(task, index, generator, draft, size) for draft in drafts])

    def _request(
        self, task: str, index: int, generator: Generator, draft: Draft, size: int
    ) -> TaskRequest:
        context = draft.context(size)
        return TaskRequest(
            uid=f"ruler-{task}-{self.length}-{index}",
            task=task,
            context=context,
            question=draft.question,
            references=draft.references,
            max_new_tokens=self._num_new_tokens(generator),
            metadata={
                **draft.metadata,
                "depths": draft.depths(context),
                "variant": ", ".join(self._departures(task, generator)) or "original",
            },
        )

    def _departures(self, task: str, generator: Generator) -> list[str]:
        num_new_tokens = self._num_new_tokens(generator)
        of_length = num_new_tokens != generator.num_new_tokens
        of_keys = task == "niah_multikey_1" and self.num_keys != ORIGINAL_KEYS
        return [
            *generator.departures(),
            *([f"num_keys={self.num_keys}"] if of_keys else []),
            *([f"max_new_tokens={num_new_tokens}"] if of_length else []),
        ]
