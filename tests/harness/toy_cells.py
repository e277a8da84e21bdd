"""Sweeps of cells that take no time: a toy in the place of the process of a cell."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from harness.composing import composed
from harness.recording import build_record, build_requests
from harness.settings import Settings, validated
from harness.stored.identity import cell_of
from harness.stored.trials import Trial, write_trial
from harness.sweeps.cells import run_job
from harness.sweeps.job import Done, Job
from harness.sweeps.supervision import Ended, Limits
from tests.harness.facts import dense_arm, facts, outcome

BUDGETS = (64, 128)


@cache
def settings_of(budget: int) -> Settings:
    return validated(composed([f"algo.retrieve.budget_tokens={budget}"]))


def job(root: Path, budget: int = 64, *, turn: int = 0, order: int = 0, **rules: Any) -> Job:
    """A run of the cell of this budget, in the round of this number."""
    plain = settings_of(budget)
    sweep = plain.sweep.model_copy(update={"round": turn, "order": order, **rules})
    settings = plain.model_copy(update={"sweep": sweep, "results": str(root)})
    cell = cell_of(settings, "model", experiment="toy")
    return Job(overrides=(f"budget={budget}",), config={}, settings=settings, cell=cell)


def sweep_of(root: Path, rounds: int = 2) -> Iterator[Job]:
    """Two cells in two rounds, there and back."""
    order = 0
    for turn in range(rounds):
        for budget in BUDGETS[:: -1 if turn % 2 else 1]:
            yield job(root, budget, turn=turn, order=order)
            order += 1


@dataclass
class Toy:
    """Leaves a trial whose score follows from the cell; or ends as it is told, without one."""

    code: int = 0
    end: Any = "exited"
    says: str = "a word\n"
    meanwhile: Callable[[], object] = lambda: None
    ran: list[tuple[str, int | None]] = field(default_factory=list)

    def __call__(self, one: Job, into: Path, log: Path, limits: Limits) -> Ended:
        self.ran.append((one.cell.hash, one.cell.round))
        self.meanwhile()
        log.write_text(self.says)
        if self.code == 0 and self.end == "exited":
            record = base_record(one.settings.algo.budget)
            run = record.run.model_copy(update={"uid": uuid4().hex})
            record = record.model_copy(update={"run": run, "cell": one.cell})
            write_trial(record, into, base_requests())
        return Ended(end=self.end, code=self.code, seconds=1.0, peak_bytes=2**30)


@cache
def base_record(budget: Any) -> Any:
    answers = tuple(outcome(f"r{index}", score=1 / budget) for index in range(4))
    return build_record(replace(facts(), arms=(dense_arm(outcomes=answers),)))


@cache
def base_requests() -> Any:
    return build_requests(facts().arms)


def run_all(root: Path, toy: Toy | None = None, most: int | None = None) -> list[Done]:
    """The toy sweep, from its first run to its last; most: of those that there are."""
    toy = toy or Toy()
    return [run_job(one, toy, Limits()) for one in list(sweep_of(root))[:most]]


def aggregates(found: Iterable[Trial]) -> dict[Any, list[Any]]:
    """What a report would say: by cell and round the scores of the trials that went well."""
    scores_of: dict[Any, list[Any]] = {}
    for trial in found:
        if trial.record.run.status == "ok":
            assert trial.record.cell is not None
            key = trial.record.cell.hash, trial.record.cell.round
            scores = [sample.score for sample in trial.samples]
            macro = trial.record.arms["dense"].accuracy.macro.value
            scores_of.setdefault(key, []).append((macro, scores, len(trial.requests)))
    return scores_of
