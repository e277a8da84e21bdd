"""The one file that imports lm-eval: its tasks, its scoring, and its list of models.

Everything is imported when it is asked for: the package is the extra `eval`.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from harness.evaluator.local_files import check_local_files

# What `lm_eval.simple_evaluate` seeds by default, apart from `random`.
OTHER_SEED = 1234
ABSENT = "the package lm-eval is not installed; pip install 'kvloom[eval]'"


class UnusableError(ValueError):
    """What was asked for cannot be composed, or not be served; one line."""


class Loaded(NamedTuple):
    """lm-eval's tasks by name, and the groups that they came in."""

    tasks: dict[str, Any]
    groups: list[Any]


class OfGroup(NamedTuple):
    """A number over the tasks of a group, and how many documents they have."""

    value: float
    size: int


def template() -> Any:
    """The class that models derive from; raises UnusableError without lm-eval."""
    try:
        from lm_eval.api.model import TemplateLM
    except ModuleNotFoundError as error:
        raise UnusableError(_missing(error)) from None
    return TemplateLM


def register(name: str, model: type) -> None:
    """Make a model known to `simple_evaluate` and to the command line of lm-eval."""
    import lm_eval.models  # noqa: F401 -- the registry is filled first, ours is added to it
    from lm_eval.api.registry import register_model

    register_model(name)(model)


def version() -> str:
    """Of lm-eval, as it is installed."""
    return metadata.version("lm_eval")


def command_line() -> None:
    """What `lm-eval` does, by the arguments of this process."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


def generation(arguments: Mapping[str, Any], most_tokens: int) -> dict[str, Any]:
    """A task's generation arguments, with `until`, `max_gen_toks`, `do_sample`, `temperature`."""
    from lm_eval.models.utils import normalize_gen_kwargs

    return dict(normalize_gen_kwargs(dict(arguments), most_tokens))


def windows(ids: Sequence[int], first: int, most_tokens: int) -> list[tuple[list[int], list[int]]]:
    """Contexts and continuations that score every token of a long text once."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    pairs = get_rolling_token_windows(
        token_list=list(ids), prefix_token=first, max_seq_len=most_tokens, context_len=1
    )
    return [make_disjoint_window(pair) for pair in pairs]


def load_tasks(
    names: Sequence[str],
    *,
    include: str | None,
    builtin: bool,
    arguments: Mapping[str, Any],
    seed: int,
    num_fewshot: int | None,
) -> Loaded:
    """lm-eval's task objects by name, groups taken apart, as `simple_evaluate` would have them."""
    try:
        from lm_eval.tasks import TaskManager
    except ModuleNotFoundError as error:
        raise UnusableError(_missing(error)) from None
    with _seeded(seed), _data_of(names):
        manager = TaskManager(
            include_path=include, include_defaults=builtin, metadata=dict(arguments)
        )
        if unknown := [name for name in names if not manager.match_tasks([name])]:
            raise ValueError(
                f"task.names={list(names)}: lm-eval has no {', '.join(unknown)}; "
                "`kvloom-lm-eval ls tasks` lists them, task.include names a folder of your own"
            )
        for entry in _entries(manager, names):
            check_local_files(entry.name, entry.cfg or {})
        loaded: dict[str, Any] = manager.load(list(names))
    for task in loaded["tasks"].values():
        _settle_fewshot(task, num_fewshot)
    return Loaded(loaded["tasks"], list(loaded["groups"].values()))


def build_instances(
    task: Any, most: int | None, seed: int, chat: Callable[..., str] | None, *, multiturn: bool
) -> list[Any]:
    """The requests of a task's first documents; raises ValueError for what no text model serves.

    chat: writes a conversation; multiturn: solved examples are turns of it.
    """
    if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
        raise ValueError(
            f"task.names: {task.task_name} runs code that a model wrote, or shows pictures; "
            "neither is served, choose another task"
        )
    with _seeded(seed):
        task.build_all_requests(
            limit=most,
            rank=0,
            world_size=1,
            apply_chat_template=chat is not None,
            fewshot_as_multiturn=multiturn,
            chat_template=chat,
        )
    return list(task.instances)


def references(task: Any, doc: Any) -> tuple[str, ...]:
    """What is right, as texts; of a choice by number, its text."""
    target = task.doc_to_target(doc)
    if isinstance(target, int) and task.config.doc_to_choice is not None:
        choices = task.doc_to_choice(doc)
        target = choices[target] if target < len(choices) else target
    return tuple(map(str, target)) if isinstance(target, list | tuple) else (str(target),)


def own_part(task: Any, instance: Any) -> str:
    """What a prompt says of its own document: all after the description and solved examples."""
    doc = instance.doc
    text = task.fewshot_context(doc, 0, gen_prefix=task.doc_to_prefix(doc))
    text = text[instance.idx] if isinstance(text, list) else text
    return str(text).removeprefix(task.resolve_field(doc, task.config.description) or "")


def process(
    task: Any, instances: Sequence[Any], responses: Sequence[Any]
) -> dict[tuple[str, str], Any]:
    """Values by metric and filter of one document, from the response to each of its instances."""
    answered = [
        replace(one, resps=[response] * (one.repeats or 1), filtered_resps={})
        for one, response in zip(instances, responses, strict=True)
    ]
    # The task's own `apply_filters` goes over all documents, and over the instances it holds.
    for chain in task._filters:
        chain.apply(answered)
    values: dict[tuple[str, str], Any] = {}
    for name in answered[0].filtered_resps:
        found = task.process_results(
            answered[0].doc, [one.filtered_resps[name] for one in answered]
        )
        values |= {(metric, name): value for metric, value in found.items()}
    return values


def aggregated(task: Any, metric: str, values: Sequence[Any]) -> float:
    """One number over documents, by the task's own rule, else the mean."""
    rule = task.aggregation().get(metric)
    return float(rule(list(values)) if rule is not None else np.mean(values))


def aggregated_groups(
    groups: Sequence[Any],
    values: Mapping[str, Mapping[tuple[str, str], float]],
    sizes: Mapping[str, int],
) -> dict[tuple[str, str, str], OfGroup]:
    """Numbers of groups, by group, metric and filter, by the groups' own rules.

    values: of tasks, by metric and filter; sizes: documents of tasks.
    """
    of_tasks = {
        name: {f"{metric},{kind}": value for (metric, kind), value in own.items()}
        | {"sample_len": sizes[name]}
        for name, own in values.items()
    }
    found = {}
    for group in groups:
        numbers = group.aggregate(of_tasks)
        for key, size in numbers.get("sample_count", {}).items():
            metric, _, kind = key.partition(",")
            found[group.name, metric, kind] = OfGroup(float(numbers[key]), size)
    return found


def _entries(manager: Any, names: Sequence[str]) -> Iterator[Any]:
    """What the manager knows of tasks by these names, and of those in a group."""
    for name in manager.match_tasks(list(names)):
        entry = manager.task_index[name]
        yield entry
        members = (entry.cfg or {}).get("task")
        if isinstance(members, list):
            known = [one for one in members if isinstance(one, str) and one in manager.task_index]
            yield from _entries(manager, known)


def _settle_fewshot(task: Any, num_fewshot: int | None) -> None:
    """As `simple_evaluate`: a task that says none keeps none."""
    own = task.get_config("num_fewshot")
    if own is None or (num_fewshot is not None and own != 0):
        task.set_config(key="num_fewshot", value=num_fewshot or 0)
    task.set_fewshot_seed(seed=OTHER_SEED)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """lm-eval draws from the generators that all modules share; they are put back afterwards."""
    ours, arrays = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(OTHER_SEED)
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(arrays)


@contextmanager
def _data_of(names: Sequence[str]) -> Iterator[None]:
    """Say in one line what data a task has not got, or cannot read."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(_missing(error)) from None
    except Exception as error:
        # Of nltk's missing models only the bare class tells; `datasets` is not imported here.
        absent = isinstance(error, OSError) or type(error) is LookupError
        if not absent and not type(error).__module__.startswith("datasets"):
            raise
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ValueError(
            f"task.names={list(names)}: its data cannot be read here: {reason}; fetch it with "
            f"`kvloom-lm-eval run --model dummy --tasks {','.join(names)} --limit 1` where there "
            "is a network, or name a local copy in a task of your own (task.include)"
        ) from None


def _missing(error: ModuleNotFoundError) -> str:
    if (error.name or "").partition(".")[0] == "lm_eval":
        return ABSENT
    return f"lm-eval needs the package {error.name}; pip install 'kvloom[eval]'"
