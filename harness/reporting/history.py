"""Accepted baselines and runs over time, from JSON lines; a line that is none is a problem."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from harness.record import RunRecord
from harness.reporting.gather import Problem, Seen, said

# What is drawn, where a line has it: a run has a hundred numbers.
METRICS = (
    *("median_tpot_ms", "median_ttft_ms", "output_throughput"),
    *("kv_read_bytes_per_decode_step", "kv_cache_hit_rate"),
)
# Of a digest, in names.
SHORT = 8


@dataclass(frozen=True, kw_only=True)
class Line:
    """One value of a run: whose, of what, when; accepted: it is what later runs are held to.

    note: why it was accepted, or the reasons against a run that is not valid.
    """

    key: str
    label: str
    metric: str
    value: float
    when: str
    run: str
    accepted: bool
    valid: bool
    note: str


def history(folder: Path, seen: Sequence[Seen]) -> tuple[list[Line], list[Problem]]:
    """The lines of `folder`/*.jsonl and the runs of their keys, by time; and what is no line."""
    lines: list[Line] = []
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, text in enumerate(_text(path, problems).splitlines(), 1):
            try:
                lines += _lines(json.loads(text)) if text.strip() else ()
            except (ValueError, RecursionError) as error:
                problems.append(Problem(place=f"{path}:{number}", reason=said(error)))
    keys, runs = {line.key for line in lines}, {line.run for line in lines if not line.accepted}
    lines += [
        line
        for one in seen
        if one.record.run.uid not in runs
        for line in _of_record(one.record)
        if line.key in keys
    ]
    return sorted(lines, key=lambda line: (line.when, not line.accepted)), problems


def _text(path: Path, problems: list[Problem]) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        problems.append(Problem(place=str(path), reason=said(error)))
        return ""


def _lines(entry: Any) -> Iterator[Line]:
    if not isinstance(entry, dict) or not isinstance(entry.get("metrics"), dict):
        raise ValueError("no entry of a history: it has no metrics")
    accepted, reasons = "accepted_at" in entry, entry.get("reasons") or ()
    note = entry.get("reason", "") if accepted else "; ".join(map(str, reasons))
    key = entry.get("key")
    for metric, value in _values(entry):
        yield Line(
            key=key_text(key if isinstance(key, dict) else {"name": key}),
            label=str(entry.get("label", "")),
            metric=metric,
            value=value,
            when=str(entry.get("accepted_at") or entry.get("started_at") or ""),
            run=str(entry.get("run", "")),
            accepted=accepted,
            valid=not reasons,
            note=str(note),
        )


def _values(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    counters = entry.get("counters")
    found = entry["metrics"] | (counters if isinstance(counters, dict) else {})
    for metric in METRICS:
        value = found.get(metric)
        number = value.get("value") if isinstance(value, dict) else value
        if isinstance(number, int | float) and isfinite(number):
            yield metric, float(number)


def key_text(key: Mapping[str, Any]) -> str:
    """A key as one text, its digests cut short."""
    return ", ".join(f"{name} {str(one)[:SHORT]}" for name, one in sorted(key.items()))


def _of_record(record: RunRecord) -> Iterator[Line]:
    """The run of a record as lines of a history; none without a cell."""
    cell, verdict = record.cell, record.run.verdict
    if cell is None:
        return
    key = {"fingerprint": record.env.fingerprint, "cell": cell.hash, "benchmark": cell.benchmark}
    arms = [arm for name, arm in record.arms.items() if name != record.baseline][:1]
    for metric in METRICS:
        value = arms[0].metrics[metric].value if arms and metric in arms[0].metrics else None
        if value is not None:
            yield Line(
                key=key_text(key),
                label="",
                metric=metric,
                value=value,
                when=record.run.started_at.isoformat(),
                run=record.run.uid,
                accepted=False,
                valid=verdict.valid,
                note="; ".join(verdict.reasons),
            )
