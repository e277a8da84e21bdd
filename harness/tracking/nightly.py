"""The nightly rule: against the median of the last valid runs; two in a row are a regression."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, stdev

from scipy import stats

from harness.comparing.counters import Named
from harness.comparing.finding import Finding, FindingClass
from harness.comparing.latency import unit_of
from harness.comparing.noise import Noise
from harness.comparing.rule import Rule
from harness.record import RunRecord
from harness.stored.identity import SHORT
from harness.tracking.history import Row, Series

WINDOW = 10
# Runs before one can be judged, and how seldom a night like them may be called worse.
LEAST = 3
ALPHA = 0.02


def nightly_findings(
    series: Series, record: RunRecord, names: Sequence[str], rule: Rule, noise: Noise
) -> list[Finding]:
    """One finding a metric for the last run of a series, which must hold the record's."""
    rows = series.since_accepted
    return [_finding(rows, record, name, rule, noise) for name in names]


@dataclass(frozen=True)
class Seen:
    """A run against those before it. worse: by how much, as a share; allowed: how much may be."""

    worse: float
    allowed: float

    @property
    def violates(self) -> bool:
        """Whether it is worse than it may be."""
        return self.worse > self.allowed


def against(value: float, before: Sequence[float], margin: float, *, higher: bool) -> Seen:
    """A value against the median of those before, of which there are enough.

    Worse than the margin, a log-ratio, is not enough where the nights themselves differ by as much:
    it must also lie outside of what their spread predicts for one more of them.
    """
    logs = [math.log(one) for one in before[-WINDOW:]]
    worse = math.log(value) - median(logs)
    n = len(logs)
    predicted = float(stats.t.isf(ALPHA, n - 1)) * stdev(logs) * math.sqrt(1 + 1 / n)
    return Seen(math.expm1(-worse if higher else worse), math.expm1(max(margin, predicted)))


def verdicts(rows: Sequence[Row], name: str, margin: float, *, higher: bool) -> list[FindingClass]:
    """The class of each run: the first are new; one violation is suspicious, two a regression.

    A run that violates does not become what is expected: it stays one until mended or accepted.
    """
    classes: list[FindingClass] = []
    good: list[float] = []
    for row in rows:
        value = row.metrics[name]
        if len(good) < LEAST:
            classes.append("new")
        elif not against(value, good, margin, higher=higher).violates:
            classes.append("unchanged")
        else:
            again = classes[-1] in ("suspicious", "regression")
            classes.append("regression" if again else "suspicious")
        if classes[-1] in ("new", "unchanged"):
            good.append(value)
    return classes


def _finding(
    rows: Sequence[Row], record: RunRecord, name: str, rule: Rule, noise: Noise
) -> Finding:
    known = [row for row in rows if name in row.metrics]
    named = Named(known[-1].key.cell[:SHORT] if known else "-", rows[-1].label if rows else "-")
    if not known or known[-1].run != record.run.uid:
        return _unknown(named, name, "the run has no such metric, or is not valid")
    higher = any(
        arm.metrics[name].direction == "higher"
        for arm in record.arms.values()
        if name in arm.metrics
    )
    margin = float(rule.margin_M(noise.of([name]))[0])
    classes = verdicts(known, name, margin, higher=higher)
    earlier = zip(known[:-1], classes[:-1], strict=True)
    before = [row.metrics[name] for row, one in earlier if one in ("new", "unchanged")][-WINDOW:]
    value, found = known[-1].metrics[name], classes[-1]
    seen = against(value, before, margin, higher=higher) if len(before) >= LEAST else None
    return Finding(
        cell=named.cell,
        label=named.label,
        metric=name,
        kind="latency",
        found=found,
        gated=True,
        unit=unit_of(record, name),
        base=median(before) if before else None,
        candidate=value,
        change=None if seen is None else seen.worse,
        margin=math.expm1(margin) if seen is None else seen.allowed,
        n=len(before),
        detail=f"against the median of {len(before)} runs; noise: {noise.source}",
    )


def _unknown(named: Named, name: str, reason: str) -> Finding:
    return Finding(
        cell=named.cell,
        label=named.label,
        metric=name,
        kind="latency",
        found="not_comparable",
        gated=True,
        detail=reason,
    )
