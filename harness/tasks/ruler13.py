"""RULER (arXiv:2404.06654), all 13 tasks, as the original has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.tasks import checks, ruler_data
from harness.tasks.base import Task, TaskRequest, Tokenizer
from harness.tasks.building import GROUP
from harness.tasks.drafts import Draft, Generator
from harness.tasks.haystacks import Haystack, Noise
from harness.tasks.needles import Needles
from harness.tasks.niah import Niah
from harness.tasks.prompt_cache import built
from harness.tasks.question_answering import Documents, QuestionAnswering
from harness.tasks.sizing import Sizing
from harness.tasks.string_match import match_all, match_part
from harness.tasks.token_counts import TokenCounts
from harness.tasks.variable_tracking import VariableTracking
from harness.tasks.word_lists import CommonWords, FrequentWords

ESSAY_TASKS = (
    *("niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multivalue", "niah_multiquery"),
)
QA_TASKS = {"qa_1": "squad", "qa_2": "hotpotqa"}
TASKS = (
    *("niah_single_1", "niah_single_2", "niah_single_3"),
    *("niah_multikey_1", "niah_multikey_2", "niah_multikey_3", "niah_multivalue"),
    *("niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"),
)
# scripts/synthetic.yaml of NVIDIA/RULER; what is not said: essay, one word key, one number.
NIAH_TASKS: Mapping[str, Mapping[str, str | int]] = {
    "niah_single_1": {"haystack": "noise"},
    "niah_single_2": {},
    "niah_single_3": {"values": "uuids"},
    "niah_multikey_1": {"num_keys": 4},
    "niah_multikey_2": {"haystack": "needle"},
    "niah_multikey_3": {"haystack": "needle", "keys": "uuids", "values": "uuids"},
    "niah_multivalue": {"num_values": 4},
    "niah_multiquery": {"num_keys": 4, "num_queries": 4},
}
# RULER's `random.Random(42)`, whatever the seed of the samples.
SHUFFLE_SEED = 42
SMALLEST_LENGTH = 128
# Of so many samples, the first is tokenised as a whole to see whether its pieces count the same.
CHECKED = 5 * GROUP
# A needle takes about 30 tokens, or more: a sample takes a quarter of the pool, or less.
SMALLEST_POOL, TOKENS_PER_POOLED = 1024, 8
_OFFLINE = "_offline"


@dataclass(frozen=True, kw_only=True)
class Ruler13(Task):
    """RULER's tasks, worded to the byte.

    Samples are draws from RULER's distribution, not the stream of its generators: a sample has a
    seed of its own and fills the length by itself, where RULER takes one size for all.

    `length` counts prompt and new tokens; `max_new_tokens` null is each task's own number.
    `essays`, `squad` and `hotpotqa` are a path, "hub", or "offline": texts of ours, whose requests
    are of task NAME_offline. `sentences`: "punkt" as in RULER, or cut by a "rule". `workers`:
    processes that build, null for one a core. `cache`: a folder in the repository, or null.
    """

    tasks: Sequence[str]
    length: int
    max_new_tokens: int | None
    num_samples: int
    seed: int
    essays: str
    sentences: str
    squad: str
    hotpotqa: str
    workers: int | None
    cache: str | None

    def __post_init__(self) -> None:
        """Raise ValueError on a setting out of range."""
        checks.names_among("task.tasks", self.tasks, TASKS)
        checks.at_least("task.length", self.length, SMALLEST_LENGTH)
        for key in ("max_new_tokens", "workers"):
            if getattr(self, key) is not None:
                checks.at_least(f"task.{key}", getattr(self, key), 1)
        checks.at_least("task.num_samples", self.num_samples, 1)
        checks.at_least("task.seed", self.seed, 0)
        checks.one_of("task.sentences", self.sentences, ruler_data.SPLITTERS)
        for key in ("essays", "squad", "hotpotqa"):
            checks.path_or("task." + key, getattr(self, key), (ruler_data.HUB, ruler_data.OFFLINE))

    @property
    def name(self) -> str:
        """See Task; with texts of ours it is another benchmark."""
        return "ruler" + (_OFFLINE if any(map(self._is_offline, self.tasks)) else "")

    def requests(self, tokenizer: Tokenizer) -> Sequence[TaskRequest]:
        """See Task; sample i of a task is the same however many samples and tasks are asked for."""
        return built(self, tokenizer)

    def score(self, request: TaskRequest, answer: str) -> float:
        """RULER's metric of the task: part of the references for QA, all of them elsewhere."""
        match = match_part if request.task.removesuffix(_OFFLINE) in QA_TASKS else match_all
        return match(answer, request.references)

    def sources(self, task: str) -> dict[str, str]:
        """Where the texts of a task come from, by the key of the setting."""
        if task in ESSAY_TASKS:
            return {"essays": self.essays}
        return {QA_TASKS[task]: getattr(self, QA_TASKS[task])} if task in QA_TASKS else {}

    def generator(self, task: str) -> Generator:
        """The generator of a task; raises ValueError where the task has not what it needs."""
        if task in QA_TASKS:
            return self._qa(task, QA_TASKS[task])
        if task == "vt":
            return VariableTracking(
                haystack=Noise(),
                original_haystack=Noise.setting,
                names="random",
                example=True,
                strip_prompt=False,
            )
        if task in ("cwe", "fwe"):
            kind = CommonWords if task == "cwe" else FrequentWords
            return kind(
                haystack=Noise(),
                original_haystack=Noise.setting,
                length=self.length,
                shuffle_seed=SHUFFLE_SEED,
            )
        return self._niah(task)

    def group(
        self, task: str, generator: Generator, start: int, counts: TokenCounts
    ) -> list[TaskRequest]:
        """Up to `GROUP` samples, from `start` on.

        Tokens are counted by pieces. Where that is not what the tokenizer makes of a whole prompt,
        all prompts of the group are tokenised as wholes: the first of `CHECKED` samples is looked
        at, and a quarter of the first of the group.
        """
        samples = range(start, min(start + GROUP, self.num_samples))
        sizing = self._sizing(task, generator, counts)
        first, *others = (self._draft(task, generator, index, counts) for index in samples)
        size = sizing.size(first)
        is_exact = self._is_exact(task, generator, start - start % CHECKED, sizing)
        is_exact = is_exact and sizing.is_exact(first, max(first.smallest_size, size // 4))
        if not is_exact:
            size = sizing.size(first, guess=size, in_pieces=False)
        sizes = [size, *(sizing.size(one, guess=size, in_pieces=is_exact) for one in others)]
        return [
            self._request(task, index, generator, draft, size)
            for index, draft, size in zip(samples, [first, *others], sizes, strict=True)
        ]

    def _is_exact(self, task: str, generator: Generator, index: int, sizing: Sizing) -> bool:
        known = sizing.counts.is_exact
        if (task, index) not in known:
            draft = self._draft(task, generator, index, sizing.counts)
            known[task, index] = sizing.is_exact(draft, sizing.size(draft))
        return known[task, index]

    def _draft(self, task: str, generator: Generator, index: int, counts: TokenCounts) -> Draft:
        return generator.draft(f"{self.seed}:{task}:{index}", lambda draft: draft.counter(counts))

    def _sizing(self, task: str, generator: Generator, counts: TokenCounts) -> Sizing:
        num_new_tokens = self._num_new_tokens(generator)
        return Sizing(task=task, length=self.length, num_new_tokens=num_new_tokens, counts=counts)

    def _request(
        self, task: str, index: int, generator: Generator, draft: Draft, size: int
    ) -> TaskRequest:
        context = draft.context(size)
        offline = _OFFLINE if self._is_offline(task) else ""
        return TaskRequest(
            uid=f"ruler{offline}-{task}-{self.length}-{index}",
            task=task + offline,
            context=context,
            question=draft.question,
            references=draft.references,
            max_new_tokens=self._num_new_tokens(generator),
            metadata={
                **draft.metadata,
                "depths": draft.depths(context),
                "variant": ", ".join(self._departures(generator, draft, size)) or "original",
            },
        )

    def _departures(self, generator: Generator, draft: Draft, size: int) -> list[str]:
        num_new_tokens = self._num_new_tokens(generator)
        of_length = num_new_tokens != generator.num_new_tokens
        return [
            *generator.departures(),
            *([f"max_new_tokens={num_new_tokens}"] if of_length else []),
            *(["haystack exhausted"] if size == draft.haystack.largest_size() else []),
        ]

    def _num_new_tokens(self, generator: Generator) -> int:
        return self.max_new_tokens or generator.num_new_tokens

    def _is_offline(self, task: str) -> bool:
        return ruler_data.OFFLINE in self.sources(task).values()

    def _qa(self, task: str, name: str) -> Generator:
        source = getattr(self, name)
        qa = ruler_data.qa_set(name, source, task)
        if self.num_samples > len(qa.questions):
            raise ValueError(
                f"task.num_samples={self.num_samples}: {task} has {len(qa.questions)} questions"
            )
        setting = f"{name}=offline" if source == ruler_data.OFFLINE else f"haystack={name}"
        return QuestionAnswering(
            haystack=Documents(qa, setting, SHUFFLE_SEED), original_haystack=f"haystack={name}"
        )

    def _niah(self, task: str) -> Generator:
        spec = NIAH_TASKS[task]
        kind = spec.get("haystack", "essay")
        values, keys = str(spec.get("values", "numbers")), str(spec.get("keys", "words"))
        return Niah(
            haystack=self._haystack(str(kind), keys, values, task),
            original_haystack=f"haystack={kind}",
            num_keys=int(spec.get("num_keys", 1)),
            num_values=int(spec.get("num_values", 1)),
            num_queries=int(spec.get("num_queries", 1)),
            keys=keys,
            values=values,
            original_values=values,
            shuffle_seed=SHUFFLE_SEED,
        )

    def _haystack(self, kind: str, keys: str, values: str, task: str) -> Haystack:
        if kind == "essay":
            return ruler_data.essays(self.essays, self.sentences, task)
        if kind == "noise":
            return Noise()
        return Needles(
            keys=keys,
            values=values,
            pool_size=max(SMALLEST_POOL, self.length // TOKENS_PER_POOLED),
            seed=f"{self.seed}:{task}",
        )
