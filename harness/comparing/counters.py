"""Deterministic counters: equal, or something else is read, moved or kept; no statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from harness.comparing.finding import Finding, FindingClass
from harness.metric import Direction
from harness.record import Arm

TOKENS = "tokens_per_sample"
# What a run counts but a clock decides.
TIMED_UNITS = frozenset({"ms", "s"})


class Counted(NamedTuple):
    """A counter: None is unobservable."""

    value: float | None
    unit: str
    direction: Direction | None


class Named(NamedTuple):
    """The cell that a finding is about."""

    cell: str
    label: str


@dataclass(frozen=True)
class Backwards:
    """Counts that fell below zero: what they were counted from began anew."""

    names: tuple[str, ...]


def counters_of(arm: Arm) -> dict[str, Counted]:
    """What does not depend on the clock, by name; unobservable where a count went backwards."""
    broken = bool(backwards(arm).names)
    return {
        name: Counted(None if broken else metric.value, metric.unit, metric.direction)
        for name, metric in sorted(arm.metrics.items())
        if (metric.source == "accounting" and metric.unit not in TIMED_UNITS) or name == TOKENS
    }


def backwards(arm: Arm) -> Backwards:
    """The counts that are negative: a restart between two looks, never a measurement."""
    names = [
        f"{phase}.{name}"
        for phase, counts in arm.counters.items()
        for name, count in counts.items()
        if any(value < 0 for value in (count.values() if isinstance(count, dict) else (count,)))
    ]
    return Backwards(tuple(names))


def counter_findings(
    named: Named,
    base: Sequence[Mapping[str, Counted]],
    candidate: Sequence[Mapping[str, Counted]],
    tolerance: float,
) -> list[Finding]:
    """One finding a counter. base, candidate: its values in each round; all rounds must agree."""
    names = sorted({name for counters in (*base, *candidate) for name in counters})
    found = []
    for name in names:
        ours = [counters.get(name, Counted(None, "", None)) for counters in base]
        theirs = [counters.get(name, Counted(None, "", None)) for counters in candidate]
        if any(one.value is not None for one in (*ours, *theirs)):
            found.append(_finding(named, name, ours, theirs, tolerance))
    return found


def _finding(
    named: Named, name: str, base: list[Counted], candidate: list[Counted], tolerance: float
) -> Finding:
    ours, theirs = base[0].value, candidate[0].value
    known = next(one for one in (*candidate, *base) if one.value is not None)
    found, detail = _classify(base, candidate, known.direction, tolerance)
    change = (theirs - ours) / ours if ours and theirs is not None else None
    return Finding(
        cell=named.cell,
        label=named.label,
        metric=name,
        kind="counter",
        found=found,
        gated=found != "inconclusive",
        unit=known.unit,
        base=ours,
        candidate=theirs,
        change=-change if change and known.direction == "higher" else change,
        margin=tolerance,
        n=min(len(base), len(candidate)),
        detail=detail,
    )


def _classify(
    base: list[Counted], candidate: list[Counted], direction: Direction | None, tolerance: float
) -> tuple[FindingClass, str]:
    ours, theirs = base[0].value, candidate[0].value
    if len({one.value for one in base}) > 1 or len({one.value for one in candidate}) > 1:
        return "inconclusive", "differs from round to round of one side: not deterministic"
    if ours is None or theirs is None:
        where = "base" if ours is None else "candidate"
        return "not_comparable", f"unobservable in the {where}"
    if abs(theirs - ours) <= tolerance * abs(ours):
        return "unchanged", ""
    if direction is None:
        return "regression", "changed, and neither way is better: accept it, or find out why"
    better = theirs > ours if direction == "higher" else theirs < ours
    return ("improvement", "") if better else ("regression", "")
