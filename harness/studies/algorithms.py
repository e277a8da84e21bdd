"""Every algorithm at every budget and length, on the same contexts: accuracy against KV read."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.cell import prepare
from harness.environment import environment
from harness.preflight import most_sequences
from harness.prepared import DENSE
from harness.progress import progress
from harness.settings import Component, Settings
from harness.studies.algorithm_answers import Bench, arm_answers, dense_answers
from harness.studies.algorithm_arms import Arm, arms_of
from harness.studies.algorithm_pairs import RULE, separations
from harness.studies.algorithm_points import summarised, told_apart
from harness.studies.algorithms_picture import draw
from harness.studies.algorithms_table import render_algorithms
from harness.studies.base import Study
from harness.studies.findings import keep_findings
from harness.studies.kept import Kept
from harness.system import load
from harness.workload import Item

RULES = {
    "context": "prefilled densely, once for all algorithms; those with a prefill pattern do their "
    "own",
    "budget": "tokens that a kv head reads per query, or holds",
    "KV read": "whole pages that attention read per decode step, by those of dense",
    "score": "mean over tasks; an answer's score as in a run",
    "separated": RULE,
    "front": "no other algorithm reads no more KV and scores higher, or reads less and scores as "
    "high; bounds are left out",
}


@dataclass(frozen=True, kw_only=True)
class Algorithms(Study):
    """Dense, and each algorithm with each budget, over the same requests of each length.

    algorithms: options of conf/algo, None for all; settings: words of a command line for single
    ones, such as what a model wants of them; budgets: tokens; lengths: of prompts; samples:
    requests of each task, by length; least_dense: tasks that dense solves worse at a length are
    left out there; cells: where finished requests are kept, so that a study that was stopped goes
    on where it was.
    """

    algorithms: Sequence[str] | None
    settings: Mapping[str, Sequence[str]] | None
    budgets: Sequence[int]
    lengths: Sequence[int]
    samples: Sequence[int]
    least_dense: float
    cells: str

    def __post_init__(self) -> None:
        """Check the settings."""
        for key in ("budgets", "lengths"):
            values = list(getattr(self, key))
            if not values or min(values) < 1 or sorted(set(values)) != values:
                raise ValueError(f"study.{key}={values} must be ascending whole numbers above 0")
        if len(self.samples) != len(self.lengths) or min(self.samples) < 1:
            raise ValueError(
                f"study.samples={list(self.samples)} must give a number of requests for each of "
                f"study.lengths={list(self.lengths)}"
            )

    def run(self, settings: Settings, console: Console) -> int:
        """See Study."""
        if settings.protocol.num_questions > 1:
            raise ValueError(
                f"protocol.num_questions={settings.protocol.num_questions}: the study takes a "
                "context once for each question; use 1, or experiment=shared_context"
            )
        kept = Kept(Path(self.cells))
        answers = []
        for length, num_samples in zip(self.lengths, self.samples, strict=True):
            answers += self._at(length, num_samples, settings, kept, console)
        counted, left_out = told_apart(answers, self.least_dense)
        if not counted:
            raise ValueError(
                f"study.least_dense={self.least_dense:g}: dense solves no task that well; "
                f"its best is {max(one['dense'] for one in left_out):.2f}"
            )
        found = {
            "kind": "algorithms",
            "rules": RULES,
            "model": settings.model.model_dump(mode="json"),
            "task": settings.task.model_dump(mode="json", by_alias=True),
            "settings": {name: list(words) for name, words in (self.settings or {}).items()},
            "budgets": list(self.budgets),
            "lengths": list(self.lengths),
            "samples": list(self.samples),
            "points": summarised(counted),
            "separations": separations(counted, self.budgets),
            "left_out": left_out,
            "environment": environment().model_dump(mode="json"),
        }
        pictures = draw(found)
        files = {"algorithms.json": json.dumps(found, indent=1).encode()} | pictures
        folder = keep_findings(Path(settings.results), "algorithms", files)
        render_algorithms(found, console)
        if not pictures:
            console.print(
                "no picture: matplotlib is not installed; pip install 'kvloom[report]'",
                markup=False,
            )
        for name in files:
            console.print(str(folder / name), soft_wrap=True, highlight=False, markup=False)
        return 0

    def _at(
        self, length: int, num_samples: int, settings: Settings, kept: Kept, console: Console
    ) -> list[dict[str, Any]]:
        """What each arm answered to the requests of one length."""
        bench = _bench(settings, length, num_samples)
        info = bench.prepared.info
        which = (self.algorithms, self.settings or {}, self.budgets)
        arms = list(arms_of(bench.prepared.settings, *which, info))
        items = bench.prepared.workload.items
        answers: list[dict[str, Any]] = []
        with progress(total=len(items), unit=f"requests of {length}", console=console) as advance:
            size = most_sequences(bench.prepared.settings)
            for start in range(0, len(items), size):
                batch = items[start : start + size]
                answers += _answers(bench, batch, arms, kept)
                for item in batch:
                    advance(item.source.task)
        return answers


def _bench(settings: Settings, length: int, num_samples: int) -> Bench:
    raw = settings.task.model_dump(by_alias=True) | {"length": length, "num_samples": num_samples}
    update = {"task": Component.model_validate(raw)}
    prepared = prepare(settings.model_copy(update=update))
    return Bench(prepared, load(prepared.settings, prepared.info, prepared.device), length)


def _digest(bench: Bench, item: Item) -> str:
    """Of all that the answers depend on beside the algorithms."""
    groups = {"partition", "tier", "backend", "model", "protocol"}
    dumped = bench.prepared.settings.model_dump(mode="json", by_alias=True, include=groups)
    request = [*item.request.prompt_ids, item.request.num_context, item.request.max_new_tokens]
    return hashlib.sha256(json.dumps([dumped, request], sort_keys=True).encode()).hexdigest()


def _answers(
    bench: Bench, items: Sequence[Item], arms: Sequence[Arm], kept: Kept
) -> list[dict[str, Any]]:
    """The answers of all arms to a batch, those that are kept and those that are not yet."""
    paths = [kept.path(_digest(bench, item), f"{bench.length}-{item.source.uid}") for item in items]
    done = [kept.read(path) for path in paths]
    keys = [DENSE.name, *(arm.key for arm in arms)]
    if any(key not in each for each in done for key in keys):
        answers, contexts = zip(*dense_answers(bench, items), strict=True)
        _fill(done, DENSE.name, answers)
        for arm in arms:
            if any(arm.key not in each for each in done):
                _fill(done, arm.key, arm_answers(bench, items, arm, contexts))
        for path, each in zip(paths, done, strict=True):
            kept.write(path, each)
    return [each[key] for each in done for key in keys]


def _fill(done: Sequence[dict[str, Any]], key: str, answers: Sequence[dict[str, Any]]) -> None:
    """What was kept stays."""
    for each, answer in zip(done, answers, strict=True):
        each.setdefault(key, answer)
