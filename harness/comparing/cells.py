"""Cells of two sides: matched by their hash, and one compared after another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.comparing.accuracy import accuracy_findings, asked_differently, scored
from harness.comparing.comparable import (
    reasons_against_pair,
    reasons_against_run,
    reasons_against_times,
)
from harness.comparing.counters import Named, backwards, counter_findings, counters_of
from harness.comparing.finding import Finding, FindingClass
from harness.comparing.interleaving import Judged
from harness.comparing.latency import (
    NOT_INTERLEAVED,
    doubtful,
    latency_findings,
    shown_findings,
    taken,
)
from harness.comparing.noise import Noise
from harness.comparing.options import Options
from harness.comparing.rule import decide
from harness.comparing.sides import arm_of, by_time, cell_of, label_of, samples_of
from harness.exact_tests import Floats
from harness.record import Arm, RunRecord
from harness.stored.trials import Trial


@dataclass(frozen=True)
class CellSides:
    """The trials of one cell on both sides, each in the order of its rounds."""

    name: str
    base: tuple[Trial, ...]
    candidate: tuple[Trial, ...]

    @property
    def named(self) -> Named:
        """The cell, for findings."""
        return Named(self.name, label_of((self.candidate or self.base)[0].record))

    def valid(self) -> "CellSides":
        """Without the trials that may not be used; they are never averaged in."""
        return CellSides(self.name, _usable(self.base), _usable(self.candidate))


def matched(base: Sequence[Trial], candidate: Sequence[Trial]) -> list[CellSides]:
    """The cells of both sides; one cell against one is a pair, whatever their hashes."""
    ours, theirs = _by_cell(base), _by_cell(candidate)
    if len(ours) == 1 and len(theirs) == 1:
        (name,) = theirs
        return [CellSides(name, *ours.values(), *theirs.values())]
    names = sorted(ours.keys() | theirs.keys())
    return [CellSides(name, ours.get(name, ()), theirs.get(name, ())) for name in names]


def compare_cell(
    cell: CellSides, options: Options, noise: Noise, judged: Judged | None = None
) -> list[Finding]:
    """All findings of a cell. judged: what interleaved rounds said; None decides on stored ones."""
    if not cell.base or not cell.candidate:
        found: FindingClass = "removed" if cell.base else "new"
        return [run_finding(cell.named, found, "", gated=found == "removed")]
    broken = list(_unusable(cell, options))
    if broken:
        return broken
    usable = cell.valid()
    base, candidate = usable.base[0].record, usable.candidate[0].record
    reasons = reasons_against_pair(base, candidate)
    if reasons:
        return [run_finding(cell.named, "not_comparable", "; ".join(reasons))]
    return [
        *_dropped(cell),
        *_accuracy(usable, options),
        *_counters(usable, options),
        *_latencies(cell, usable, options, noise, judged),
    ]


def run_finding(
    named: Named, found: FindingClass, detail: str, *, gated: bool = True, metric: str = "run"
) -> Finding:
    """A finding about a run as a whole."""
    return Finding(
        cell=named.cell,
        label=named.label,
        metric=metric,
        kind="run",
        found=found,
        gated=gated,
        detail=detail,
    )


def _by_cell(trials: Sequence[Trial]) -> dict[str, tuple[Trial, ...]]:
    cells: dict[str, list[Trial]] = {}
    for trial in by_time(trials):
        cells.setdefault(cell_of(trial.record), []).append(trial)
    return {name: tuple(sorted(group, key=_round)) for name, group in cells.items()}


def _round(trial: Trial) -> int:
    cell = trial.record.cell
    return cell.round if cell is not None and cell.round is not None else 0


def _usable(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    return tuple(trial for trial in trials if not reasons_against_run(trial.record))


def _unusable(cell: CellSides, options: Options) -> Iterator[Finding]:
    """What is left to say of a cell when a side has nothing that may be used."""
    for side, trials in (("base", cell.base), ("candidate", cell.candidate)):
        valid = _usable(trials)
        if not valid:
            record = trials[-1].record
            found: FindingClass = "errored" if record.run.status != "ok" else "not_comparable"
            reasons = "; ".join(reasons_against_run(record))
            yield run_finding(cell.named, found, f"no valid run: {reasons}", metric=side)
        elif arm_of(valid[0].record, options.arm) is None:
            arms = ", ".join(valid[0].record.arms)
            detail = f"no arm {options.arm}; there is {arms}"
            yield run_finding(cell.named, "not_comparable", detail, metric=side)


def _dropped(cell: CellSides) -> Iterator[Finding]:
    """Runs that are left out beside valid ones; one that broke off is told by the exit code."""
    for side, trials in (("base", cell.base), ("candidate", cell.candidate)):
        for trial in trials:
            if reasons := reasons_against_run(trial.record):
                failed = trial.record.run.status != "ok"
                found: FindingClass = "errored" if failed else "not_comparable"
                detail = f"left out: {'; '.join(reasons)}"
                yield run_finding(cell.named, found, detail, gated=failed, metric=side)


def _accuracy(cell: CellSides, options: Options) -> list[Finding]:
    base, candidate = (
        scored([sample for trial in trials for sample in samples_of(trial, options.arm)])
        for trials in (cell.base, cell.candidate)
    )
    reasons = asked_differently(base, candidate)
    if reasons:
        return [run_finding(cell.named, "not_comparable", "; ".join(reasons), metric="accuracy")]
    return accuracy_findings(cell.named, base, candidate, options.score_rule)


def _counters(cell: CellSides, options: Options) -> list[Finding]:
    arms = [
        [arm for trial in trials if (arm := arm_of(trial.record, options.arm)) is not None]
        for trials in (cell.base, cell.candidate)
    ]
    findings = counter_findings(
        cell.named,
        [counters_of(arm) for arm in arms[0]],
        [counters_of(arm) for arm in arms[1]],
        options.counter_tolerance,
    )
    fell = sorted({name for side in arms for arm in side for name in backwards(arm).names})
    if not fell:
        return findings
    reason = f"counters went backwards: {', '.join(fell)}"
    return [*findings, run_finding(cell.named, "not_comparable", reason, metric="counters")]


def _latencies(
    cell: CellSides, usable: CellSides, options: Options, noise: Noise, judged: Judged | None
) -> list[Finding]:
    """The pairs of all rounds of a cell; one with a side that may not be used has no value."""
    base, like = usable.base[0].record, usable.candidate[0].record
    reasons = reasons_against_times(base, like)
    if reasons:
        return [run_finding(cell.named, "not_comparable", "; ".join(reasons), metric="latency")]
    rule, names = options.rule, options.gated
    ours, theirs = costs(cell, names, options.arm)
    in_turns = judged is not None or interleaved(cell)
    if judged is None:
        logs_MN = np.log(theirs) - np.log(ours)
        judged = Judged(decide(logs_MN, rule.margin_M(noise.of(names)), rule), logs_MN, None)
    values = medians(ours, like, names), medians(theirs, like, names)
    gated = latency_findings(cell.named, names, like, values, judged, rule)
    if not in_turns:
        gated = doubtful(gated, NOT_INTERLEAVED)
    return [*gated, *_shown(cell, options, like)]


def _shown(cell: CellSides, options: Options, like: RunRecord) -> list[Finding]:
    names = [name for name in options.shown if name not in options.gated]
    if not names:
        return []
    ours, theirs = costs(cell, names, options.arm)
    values = medians(ours, like, names), medians(theirs, like, names)
    logs_MN = np.log(theirs) - np.log(ours)
    return shown_findings(cell.named, names, like, values, logs_MN, options.rule)


def costs(cell: CellSides, names: Sequence[str], arm: str | None) -> tuple[Floats, Floats]:
    """What the rounds of base and candidate took, float64 [M, N] each; as many as both have."""
    num = min(len(cell.base), len(cell.candidate))
    ours, theirs = (
        np.stack([_taken(trial.record, names, arm) for trial in trials[:num]], axis=-1)
        for trials in (cell.base, cell.candidate)
    )
    return ours, theirs


def medians(costs_MN: Floats, like: RunRecord, names: Sequence[str]) -> Floats:
    """The median round in the metric's own unit, float64 [M]; NaN without a value."""
    values = []
    for costs_N, name in zip(costs_MN, names, strict=True):
        known = costs_N[np.isfinite(costs_N)]
        value = float(np.median(known)) if known.size else np.nan
        rate = any(arm.metrics[name].direction == "higher" for arm in _with(like, name))
        values.append(1 / value if rate else value)
    return np.array(values)


def interleaved(cell: CellSides) -> bool:
    """Whether the trials of both sides ran in turns: the runs of each pair follow one another."""
    ran = sorted(
        (trial.record.run.started_at, number)
        for trials in (cell.base, cell.candidate)
        for number, trial in enumerate(trials)
    )
    order = [number for _, number in ran]
    return order[::2] == order[1::2]


def _taken(record: RunRecord, names: Sequence[str], named: str | None) -> Floats:
    arm = None if reasons_against_run(record) else arm_of(record, named)
    return taken({} if arm is None else arm.metrics, names)


def _with(record: RunRecord, name: str) -> list[Arm]:
    return [arm for arm in record.arms.values() if name in arm.metrics]
