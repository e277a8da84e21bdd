"""Accepted baselines: what a cell is expected to show, reviewed like code, as JSON lines."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime

from harness.comparing.accuracy import Scored, scored
from harness.comparing.counters import Counted, counters_of
from harness.comparing.sides import arm_of, label_of, samples_of
from harness.metric import Direction
from harness.record import RunRecord
from harness.schema import Part
from harness.stored.trials import Trial
from harness.tracking.lines import Read, append, read

ACCEPTED = "accepted.jsonl"


class Key(Part):
    """What makes runs the same over time: the hardware, what is measured, and what measures."""

    fingerprint: str
    cell: str
    benchmark: str

    def same_work(self, other: "Key") -> bool:
        """Whether both measure the same, on whatever hardware: enough for counters and answers."""
        return (self.cell, self.benchmark) == (other.cell, other.benchmark)


class KeptCount(Part):
    """A deterministic counter."""

    value: float | None
    unit: str
    direction: Direction | None


class KeptScore(Part):
    """An answer: its score, and digests of what was asked and answered."""

    task: str
    score: float
    asked: str
    answered: str


class Baseline(Part):
    """An accepted run, `started_at` once. metrics: latencies, for the same hardware only."""

    key: Key
    label: str
    reason: str
    accepted_at: AwareDatetime
    started_at: AwareDatetime
    run: str
    sha: str | None
    metrics: dict[str, float]
    counters: dict[str, KeptCount]
    scores: dict[str, KeptScore]

    def counted(self) -> dict[str, Counted]:
        """Its counters, as a run's."""
        return {
            name: Counted(one.value, one.unit, one.direction) for name, one in self.counters.items()
        }

    def scored(self) -> dict[str, Scored]:
        """Its answers, as a run's."""
        return {
            uid: Scored(task=one.task, score=one.score, asked=one.asked, answered=one.answered)
            for uid, one in self.scores.items()
        }


def key_of(record: RunRecord) -> Key | None:
    """The key of a run; None of a record without a cell."""
    if record.cell is None:
        return None
    return Key(
        fingerprint=record.env.fingerprint,
        cell=record.cell.hash,
        benchmark=record.cell.benchmark,
    )


def accept(folder: Path, trial: Trial, reason: str, arm: str | None = None) -> Baseline:
    """Make a trial what its cell is expected to show from now on; the folder is of baselines."""
    record = trial.record
    key, tested = key_of(record), arm_of(record, arm)
    if key is None or tested is None:
        raise ValueError(f"{trial.folder}: without a cell or an arm there is nothing to accept")
    baseline = Baseline(
        key=key,
        label=label_of(record),
        reason=reason,
        accepted_at=datetime.now(UTC),
        started_at=record.run.started_at,
        run=record.run.uid,
        sha=None if record.env.git is None else record.env.git.sha,
        metrics=latencies_of(record, arm),
        counters={name: KeptCount(**one._asdict()) for name, one in counters_of(tested).items()},
        scores={uid: _kept(one) for uid, one in scored(samples_of(trial, arm)).items()},
    )
    append(folder / ACCEPTED, baseline)
    return baseline


def _kept(one: Scored) -> KeptScore:
    """Contexts are told by the run that is compared with it."""
    return KeptScore(task=one.task, score=one.score, asked=one.asked, answered=one.answered)


def latencies_of(record: RunRecord, arm: str | None = None) -> dict[str, float]:
    """The medians and rates of the arm under test."""
    tested = arm_of(record, arm)
    return {
        name: metric.value
        for name, metric in (tested.metrics if tested is not None else {}).items()
        if metric.value is not None and metric.source == "client" and metric.status == "ok"
    }


def accepted(folder: Path) -> Read[Baseline]:
    """All baselines that were ever accepted, oldest first, and lines that are damaged."""
    return read(folder / ACCEPTED, Baseline)


def latest(folder: Path, key: Key) -> Baseline | None:
    """The last accepted for this work, that of this hardware before others; None without any."""
    rows = [row for row in accepted(folder).rows if row.key.same_work(key)]
    here = [row for row in rows if row.key.fingerprint == key.fingerprint]
    found = here or rows
    return found[-1] if found else None
