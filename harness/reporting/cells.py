"""Cells of a report: the trials of one cell, on one machine and of one version of the code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.paired_scores import ScoreChange
from harness.record import RunRecord
from harness.reporting.axes import axes_of, command_of, env_of, group_of, is_bound
from harness.reporting.distributions import LATENCIES, Steps, latencies
from harness.reporting.gather import Seen
from harness.reporting.quantities import change_of, moved_of, readings_of, scores_of
from harness.reporting.readings import Reading, over_trials
from harness.stored.identity import SHORT

SIMULATED_BACKENDS = frozenset({"replay"})


@dataclass(frozen=True, kw_only=True)
class ArmShown:
    """One arm of a cell over its trials; steps: by latency, the steps of its ECDF.

    change: of its scores against the baseline's, in the last trial.
    """

    readings: Mapping[str, Reading]
    tasks: Mapping[str, Reading] = field(default_factory=dict)
    moved: Mapping[str, Reading] = field(default_factory=dict)
    steps: Mapping[str, Steps] = field(default_factory=dict)
    change: ScoreChange | None = None


@dataclass(frozen=True, kw_only=True)
class TrialShown:
    """What became of one trial."""

    place: str
    uid: str
    started: str
    status: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CellShown:
    """One cell; `what`: its axes in the words of a record; group: what it may be compared within.

    current: no later version of the code has measured this cell on this machine.
    bound: the algorithm is there to be compared with; nobody can run it for its speed.
    """

    id: str
    what: Mapping[str, Any]
    group: tuple[str, ...]
    baseline: str
    trials: tuple[TrialShown, ...]
    arms: Mapping[str, ArmShown]
    valid: bool
    bound: bool = False
    current: bool = True
    simulated: bool = False
    command: str | None = None
    notes: tuple[str, ...] = ()
    env: Mapping[str, Any] = field(default_factory=dict)


def cells_of(seen: Sequence[Seen]) -> list[CellShown]:
    """The cells of the runs, each with its trials in the order of time."""
    runs: dict[tuple[str, ...], list[Seen]] = {}
    for one in sorted(seen, key=lambda one: one.record.run.started_at):
        runs.setdefault(key_of(one.record), []).append(one)
    # Later ones come last, so the last version of a cell on a machine is the current one.
    latest = {(key[0], key[1], key[3]): key for key in runs}
    return [
        _cell(key, trials, current=latest[key[0], key[1], key[3]] == key)
        for key, trials in runs.items()
    ]


def key_of(record: RunRecord) -> tuple[str, str, str, str]:
    """Experiment, cell, code and machine: only trials that share all four have a median."""
    machine = record.env.fingerprint
    if record.cell is None:
        return ("runs", record.run.uid, "", machine)
    cell = record.cell
    return (cell.experiment, cell.hash, cell.code, machine)


def _cell(key: tuple[str, ...], trials: Sequence[Seen], *, current: bool) -> CellShown:
    good = [one for one in trials if one.record.run.verdict.valid]
    measured = good or [one for one in trials if one.record.arms]
    last = (measured or trials)[-1].record
    simulated = last.system.backend.name in SIMULATED_BACKENDS
    names = list(dict.fromkeys(name for one in measured for name in one.record.arms))
    return CellShown(
        id=key[1][:SHORT],
        what=axes_of(last, key[0]),
        group=group_of(last),
        baseline=last.baseline,
        trials=tuple(map(_trial, trials)),
        arms={name: _arm(name, measured, simulated=simulated) for name in names},
        valid=bool(good),
        bound=is_bound(last.config.resolved),
        current=current,
        simulated=simulated,
        command=command_of(last),
        notes=last.system.notes,
        env=env_of(last),
    )


def _trial(one: Seen) -> TrialShown:
    run = one.record.run
    errors = tuple(f"{e.stage}: {e.kind}: {e.message}" for e in one.record.errors)
    return TrialShown(
        place=one.place,
        uid=run.uid[:8],
        started=run.started_at.isoformat(timespec="seconds"),
        status=run.status if run.status != "ok" or run.verdict.valid else "invalid",
        reasons=run.verdict.reasons + errors,
    )


def _arm(name: str, trials: Sequence[Seen], *, simulated: bool) -> ArmShown:
    runs = [one for one in trials if name in one.record.arms]
    records = [one.record for one in runs]
    return ArmShown(
        readings=_merged([readings_of(one, name, simulated=simulated) for one in records]),
        tasks=_merged([scores_of(one, name) for one in records]),
        moved=_merged([moved_of(one, name, simulated=simulated) for one in records]),
        steps={
            latency: steps
            for latency in LATENCIES
            if (steps := latencies(latency, name, runs)) is not None
        },
        change=change_of(records[-1], name) if records else None,
    )


def _merged(by_trial: Sequence[Mapping[str, Reading | None]]) -> dict[str, Reading]:
    names = dict.fromkeys(name for readings in by_trial for name in readings)
    merged = {name: over_trials([one.get(name) for one in by_trial]) for name in names}
    return {name: one for name, one in merged.items() if one is not None}
