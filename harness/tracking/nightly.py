"""The nightly rule: against the median of the last valid runs; two in a row are a regression."""

import math
from collections.abc import Sequence
from statistics import median

from harness.comparing.counters import Named
from harness.comparing.finding import Finding, FindingClass
from harness.comparing.latency import unit_of
from harness.comparing.noise import Noise
from harness.comparing.rule import Rule
from harness.record import RunRecord
from harness.stored.identity import SHORT
from harness.tracking.history import Row, Series

WINDOW = 10


def nightly_findings(
    series: Series, record: RunRecord, names: Sequence[str], rule: Rule, noise: Noise
) -> list[Finding]:
    """One finding a metric for the last run of a series, which must hold the record's."""
    rows = series.since_accepted
    return [_finding(rows, record, name, rule, noise) for name in names]


def violates(rows: Sequence[Row], name: str, margin: float, *, higher: bool) -> tuple[float, bool]:
    """How much worse the last run is than the median of those before, and if beyond the margin.

    The runs before are valid ones that did not violate themselves: a slow one that stays must not
    become what is expected.
    """
    value, before = rows[-1].metrics[name], [row.metrics[name] for row in rows[:-1]]
    expected = median(before[-WINDOW:])
    worse = expected / value if higher else value / expected
    return worse - 1, math.log(worse) > margin


def verdicts(rows: Sequence[Row], name: str, margin: float, *, higher: bool) -> list[FindingClass]:
    """The class of each run: the first is new; one violation is suspicious, two a regression."""
    classes: list[FindingClass] = []
    good: list[Row] = []
    for row in rows:
        if not good:
            classes.append("new")
            good.append(row)
            continue
        _, violated = violates([*good, row], name, margin, higher=higher)
        if not violated:
            good.append(row)
            classes.append("unchanged")
        else:
            again = classes[-1] in ("suspicious", "regression")
            classes.append("regression" if again else "suspicious")
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
    found = verdicts(known, name, margin, higher=higher)
    good = [row for row, one in zip(known, found, strict=True) if one in ("new", "unchanged")]
    before = [row for row in good if row.run != record.run.uid]
    expected = median(row.metrics[name] for row in before[-WINDOW:]) if before else None
    change = violates([*before, known[-1]], name, margin, higher=higher)[0] if before else None
    return Finding(
        cell=named.cell,
        label=named.label,
        metric=name,
        kind="latency",
        found=found[-1],
        gated=True,
        unit=unit_of(record, name),
        base=expected,
        candidate=known[-1].metrics[name],
        change=change,
        margin=math.expm1(margin),
        n=len(before[-WINDOW:]),
        detail=f"against the median of {len(before[-WINDOW:])} runs; noise: {noise.source}",
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
