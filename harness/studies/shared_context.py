"""One context, several questions: systems beside dense, and by question what each of them lost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from backends.transformers.engine import TransformersBackend
from harness.accuracy import accuracy_by_task
from harness.build import build_algorithm
from harness.cell import prepare
from harness.comparison import scored_pairs
from harness.composing import settings_from
from harness.environment import environment
from harness.exact_tests import holm
from harness.outcome import Outcome
from harness.paired_scores import flips, interval, loss_p, mean_change
from harness.preflight import preflight
from harness.prepared import DENSE, Prepared
from harness.progress import progress
from harness.settings import AlgoSettings, Settings
from harness.studies.base import Study
from harness.studies.findings import keep_findings
from harness.studies.shared_context_table import render_shared
from harness.system import assemble, load
from harness.trial import run_interleaved

RULES = {
    "context": "prefilled once; each question is asked on what is left of it, without those before "
    "and their answers",
    "score": "RULER's string match, 95 % Wilson interval",
    "loss": "against dense on the same questions: flips, and the one-sided p of a loss, Holm over "
    "all systems and questions",
}


@dataclass(frozen=True)
class System:
    """One of the systems: its engine, and what it is."""

    engine: TransformersBackend
    algo: AlgoSettings


@dataclass(frozen=True, kw_only=True)
class SharedContext(Study):
    """Systems over the same contexts, interleaved. systems: words of a command line, by name."""

    systems: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.systems or DENSE.name in self.systems:
            raise ValueError(
                f"study.systems={list(self.systems)}: name at least one system; dense, which all "
                "are compared with, is always there"
            )

    def run(self, settings: Settings, console: Console) -> int:
        """See Study."""
        prepared = prepare(settings)
        systems = self._systems(prepared)
        outcomes = _outcomes(prepared, systems, console)
        found = {
            "kind": "shared_context",
            "rules": RULES,
            "model": settings.model.model_dump(mode="json"),
            "task": settings.task.model_dump(mode="json", by_alias=True),
            "protocol": settings.protocol.model_dump(mode="json"),
            "systems": {
                name: one.algo.model_dump(mode="json", by_alias=True)
                for name, one in systems.items()
            },
            "scores": {name: _scores(ones) for name, ones in outcomes.items()},
            "losses": losses(outcomes),
            "samples": _samples(prepared, outcomes),
            "environment": environment().model_dump(mode="json"),
        }
        files = {"shared_context.json": json.dumps(found, indent=1).encode()}
        folder = keep_findings(Path(settings.results), "shared_context", files)
        render_shared(found, console)
        where = str(folder / "shared_context.json")
        console.print(where, soft_wrap=True, highlight=False, markup=False)
        return 0

    def _systems(self, prepared: Prepared) -> dict[str, System]:
        """All of them assembled, over one model; raises ValueError for one that cannot run."""
        every = {DENSE.name: ["algo=dense"]} | dict(self.systems)
        algos = {name: settings_from(words).algo for name, words in every.items()}
        info, workload, device = prepared.info, prepared.workload, prepared.device
        planned = {}
        for name, algo in algos.items():
            settings = prepared.settings.model_copy(update={"algo": algo})
            algorithm = build_algorithm(settings).fitted(info.shape)
            plan = preflight(settings, algorithm, info, workload, device)
            planned[name] = (settings, algorithm, plan)
        model = load(prepared.settings, info, device)
        return {
            name: System(assemble(*parts, info, model, prepared.kernel), algos[name])
            for name, parts in planned.items()
        }


def losses(outcomes: Mapping[str, Sequence[Outcome]]) -> list[dict[str, Any]]:
    """What each system lost against dense, by question."""
    base = {one.uid: one for one in outcomes[DENSE.name]}
    found = []
    for name, ones in outcomes.items():
        if name == DENSE.name:
            continue
        both = [(one, base[one.uid]) for one in ones if one.uid in base]
        for task, pairs in scored_pairs(both).items():
            harmful, beneficial = flips(pairs)
            p, test = loss_p({task: pairs})
            low, high = interval({task: pairs})
            found.append(
                {"system": name, "task": task, "n": len(pairs), "harmful": harmful}
                | {"beneficial": beneficial, "change": mean_change({task: pairs})}
                | {"interval": [low, high], "p": p, "test": test}
            )
    adjusted = holm(np.array([one["p"] for one in found]))
    return [one | {"p": float(p)} for one, p in zip(found, adjusted, strict=True)]


def _outcomes(
    prepared: Prepared, systems: Mapping[str, System], console: Console
) -> dict[str, list[Outcome]]:
    engines = {name: one.engine for name, one in systems.items()}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in systems}
    total = len(prepared.workload.items) * len(systems)
    with progress(total=total, unit="questions", console=console) as advance:
        for outcome in run_interleaved(
            engines, prepared.workload, prepared.tokenizer, at_once=prepared.at_once
        ):
            outcomes[outcome.arm].append(outcome)
            advance(f"{outcome.arm} {outcome.task}")
    return outcomes


def _scores(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Scores of one system by question, with their intervals."""
    by_task = accuracy_by_task(outcomes)
    return {task: one.score.model_dump(mode="json") for task, one in by_task.items()}


def _samples(prepared: Prepared, outcomes: Mapping[str, Sequence[Outcome]]) -> list[dict[str, Any]]:
    """Every question through every system, with its answer."""
    references = {item.source.uid: item.source.references for item in prepared.workload.items}
    kept = ("uid", "task", "arm", "question", "answer", "score")
    return [
        {key: getattr(one, key) for key in kept} | {"references": list(references[one.uid])}
        for ones in outcomes.values()
        for one in ones
    ]
