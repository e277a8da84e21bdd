"""Any task of lm-eval: its documents and prompts, its scoring, through our own arms."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Self

from harness.evaluator import library
from harness.evaluator.defects import defects
from harness.metric import Direction, Metric, Quantity
from harness.outcome import Outcome
from harness.tasks import checks
from harness.tasks.base import Task, TaskRequest, Tokenizer
from harness.tasks.chat import conversation

# The default of lm-eval's `hf` model.
MOST_NEW_TOKENS = 256


class _Document(NamedTuple):
    """A document of a task, whose instances have to be answered all before it has a score."""

    task: Any
    name: str
    instances: Sequence[Any]
    uids: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class LmEval(Task):
    """lm-eval's tasks by their names; a group stands for all tasks in it.

    include: a folder with tasks of your own, builtin: whether lm-eval's own are looked through,
    which takes ten seconds; metadata: what some tasks take, as RULER its max_seq_lengths;
    num_samples: documents of each task, null for all; num_fewshot, max_new_tokens: null leaves
    them to the task; metric: whose value is the score of a document, null for the first one in
    [0, 1] of which more is better; question_tokens: the last ones of a prompt are the question,
    null for all that follows the description and the solved examples; max_length: of prompt and
    answer, longer prompts lose their beginning, null for what the model takes.
    apply_chat_template: the prompt is a user's turn, and fewshot_as_multiturn: solved examples are
    turns before it.
    """

    names: Sequence[str]
    include: str | None
    builtin: bool
    metadata: Mapping[str, Any] | None
    num_samples: int | None
    num_fewshot: int | None
    max_new_tokens: int | None
    metric: str | None
    question_tokens: int | None
    max_length: int | None
    apply_chat_template: bool
    fewshot_as_multiturn: bool
    seed: int
    _documents: list[_Document] = field(default_factory=list, init=False, repr=False, compare=False)
    _groups: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise ValueError on a setting out of range."""
        named = isinstance(self.names, Sequence) and not isinstance(self.names, str)
        if not named or not self.names or not all(isinstance(one, str) for one in self.names):
            raise ValueError(f"task.names={self.names!r}: must be a list of one or more names")
        for key in ("num_samples", "max_new_tokens", "question_tokens", "max_length"):
            if (value := getattr(self, key)) is not None:
                checks.at_least(f"task.{key}", value, 1)
        if self.num_fewshot is not None:
            checks.at_least("task.num_fewshot", self.num_fewshot, 0)
        checks.at_least("task.seed", self.seed, 0)
        for key in ("builtin", "apply_chat_template", "fewshot_as_multiturn"):
            checks.flag(f"task.{key}", getattr(self, key))
        if self.apply_chat_template and self.question_tokens is None:
            raise ValueError(
                "task.question_tokens=null: a chat template leaves no telling where the question "
                "begins; give a number, or set task.apply_chat_template=false"
            )
        if not isinstance(self.metadata, Mapping | None):
            raise ValueError(f"task.metadata={self.metadata!r}: must be a mapping, or null")

    def limited_to(self, max_tokens: int) -> Self:
        """See Task."""
        return replace(self, max_length=min(max_tokens, self.max_length or max_tokens))

    def requests(self, tokenizer: Tokenizer) -> Sequence[TaskRequest]:
        """See Task; one for each of lm-eval's instances, as `simple_evaluate` builds them."""
        tasks, groups = library.load_tasks(
            self.names,
            include=self.include,
            builtin=self.builtin,
            # Synthetic tasks size their texts by it.
            arguments={
                "tokenizer": getattr(tokenizer, "name_or_path", None),
                **(self.metadata or {}),
            },
            seed=self.seed,
            num_fewshot=self.num_fewshot,
        )
        self._documents.clear()
        self._groups[:] = groups
        chat = self._chat(tokenizer)
        requests = []
        for name, task in tasks.items():
            instances = library.build_instances(
                task, self.num_samples, self.seed, chat, multiturn=self.fewshot_as_multiturn
            )
            for document in _documents(name, task, instances):
                self._documents.append(document)
                pairs = zip(document.uids, document.instances, strict=True)
                requests += [self._request(uid, one, document) for uid, one in pairs]
        return tuple(requests)

    def score(self, request: TaskRequest, answer: str) -> float | None:
        """See Task; documents are scored by `settled`, once all their answers are there."""
        return None

    @property
    def notes(self) -> Sequence[str]:
        """See Task."""
        names = sorted({document.name for document in self._documents})
        rule = (
            f"the last {self.question_tokens} tokens of each prompt"
            if self.question_tokens
            else "what follows the description and the solved examples of each prompt"
        )
        note = f"tasks of lm-eval {library.version()}: {', '.join(names)}; the question is {rule}"
        sampled = sorted({one.name for one in self._documents if _samples(one.instances[0])})
        how = (
            [f"{', '.join(sampled)} would sample; protocol.temperature says how"] if sampled else []
        )
        chat = ["prompts stand in the model's chat template"] if self.apply_chat_template else []
        return [note, *chat, *how, *defects(names)]

    def settled(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """See Task; the score of a document is that of the first of its requests."""
        scores = {
            document.uids[0]: self._score(document.task, values)
            for document, values in self._processed(outcomes)
        }
        return [replace(outcome, score=scores.get(outcome.uid)) for outcome in outcomes]

    def metrics(self, outcomes: Sequence[Outcome]) -> Mapping[str, Metric]:
        """See Task: lm-eval's own metrics, aggregated over documents by its own rules."""
        gathered: dict[tuple[str, str, str], list[Any]] = {}
        tasks = {}
        for document, values in self._processed(outcomes):
            tasks[document.name] = document.task
            for (metric, kind), value in values.items():
                gathered.setdefault((document.name, metric, kind), []).append(value)
        found = {
            key: _metric(tasks[key[0]], key[1], values)
            for key, values in gathered.items()
            if not _absent(values)
        }
        found |= self._of_groups(tasks, found)
        return {
            f"lm_eval_{name}_{metric}" + (f"_{kind}" if kind != "none" else ""): value
            for (name, metric, kind), value in found.items()
        }

    def _of_groups(
        self, tasks: Mapping[str, Any], found: Mapping[tuple[str, str, str], Metric]
    ) -> dict[tuple[str, str, str], Metric]:
        """Metrics of the groups that were asked for, from those of their tasks."""
        values: dict[str, dict[tuple[str, str], float]] = {}
        for (name, metric, kind), one in found.items():
            if one.value is not None:
                values.setdefault(name, {})[metric, kind] = one.value
        sizes = Counter(document.name for document in self._documents)
        better = {metric: one.direction for (_, metric, _), one in found.items()}
        groups = library.aggregated_groups(self._groups, values, sizes)
        return {
            key: Quantity(unit="score", direction=better[key[1]], source="client").metric(
                one.value, n=one.size, aggregation="lm-eval's own"
            )
            for key, one in groups.items()
        }

    def _chat(self, tokenizer: Any) -> Callable[..., str] | None:
        if not self.apply_chat_template:
            return None
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                "task.apply_chat_template=true: the model's tokenizer has no chat template; "
                "use false"
            )
        return partial(conversation, tokenizer)

    def _request(self, uid: str, instance: Any, document: _Document) -> TaskRequest:
        common: dict[str, Any] = {
            "uid": uid,
            "task": document.name,
            "references": library.references(document.task, instance.doc),
            "metadata": {"doc_id": instance.doc_id, "type": instance.request_type},
        }
        if instance.request_type == "loglikelihood_rolling":
            (text,) = instance.args
            return TaskRequest(
                **common, context="", question="", max_new_tokens=1, continuation=text, is_text=True
            )
        prompt = instance.args[0]
        own = "" if self.question_tokens else library.own_part(document.task, instance)
        asked = {
            "context": prompt.removesuffix(own),
            "question": own if prompt.endswith(own) else "",
            "question_tokens": self.question_tokens or 0,
            "most_tokens": self.max_length,
        }
        if instance.request_type == "loglikelihood":
            return TaskRequest(**common, **asked, max_new_tokens=1, continuation=instance.args[1])
        options = library.generation(instance.args[1], MOST_NEW_TOKENS)
        return TaskRequest(
            **common,
            **asked,
            max_new_tokens=self.max_new_tokens or options["max_gen_toks"],
            stop_strings=tuple(options["until"]),
        )

    def _processed(
        self, outcomes: Iterable[Outcome]
    ) -> Iterator[tuple[_Document, dict[tuple[str, str], Any]]]:
        """Documents whose requests are all answered, and their values by metric and filter."""
        answered = {one.uid: one for one in outcomes if one.error is None}
        for document in self._documents:
            if all(uid in answered for uid in document.uids):
                pairs = zip(document.instances, document.uids, strict=True)
                responses = [_response(one, answered[uid]) for one, uid in pairs]
                yield document, library.process(document.task, document.instances, responses)

    def _score(self, task: Any, values: Mapping[tuple[str, str], Any]) -> float | None:
        better = task.higher_is_better()
        for (metric, _), value in values.items():
            wanted = better.get(metric, True) if self.metric is None else metric == self.metric
            if wanted and isinstance(value, int | float) and 0 <= value <= 1:
                return float(value)
        return None


def _documents(name: str, task: Any, instances: Sequence[Any]) -> list[_Document]:
    by_doc: dict[int, list[Any]] = {}
    for instance in instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    return [
        _Document(task, name, members, [f"lm_eval-{name}-{doc}-{one.idx}" for one in members])
        for doc, members in by_doc.items()
    ]


def _samples(instance: Any) -> bool:
    if instance.request_type != "generate_until":
        return False
    return bool(library.generation(instance.args[1], MOST_NEW_TOKENS)["do_sample"])


def _response(instance: Any, outcome: Outcome) -> Any:
    """The answer in the form that lm-eval's model would have returned it in."""
    if outcome.likelihood is None:
        return outcome.answer
    if instance.request_type == "loglikelihood_rolling":
        return outcome.likelihood.log_probability
    return tuple(outcome.likelihood)


def _metric(task: Any, name: str, values: Sequence[Any]) -> Metric:
    better = task.higher_is_better().get(name)
    direction: Direction | None = None if better is None else "higher" if better else "lower"
    quantity = Quantity(unit="score", direction=direction, source="client")
    value = library.aggregated(task, name, values)
    return quantity.metric(value, n=len(values), aggregation="lm-eval's own")


def _absent(values: Sequence[Any]) -> bool:
    """RULER's metrics are named by length, and are -1 for every length that is not a document's."""
    return all(isinstance(value, int | float) and value == -1 for value in values)
