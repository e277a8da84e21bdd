"""Accepted baselines over time, from JSON lines; a line that cannot be read is a problem."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from harness.reporting.gather import Problem, said

# Where the time of a line may stand, the best name first.
TIMES = ("accepted_at", "recorded_at", "measured_at", "started_at", "time", "date", "at")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One accepted value: of which key and metric, when, and the rest of its line as text."""

    key: str
    metric: str
    value: float
    when: str
    rest: dict[str, str]


def history(folder: Path) -> tuple[list[Line], list[Problem]]:
    """All lines of `folder`/*.jsonl, and those that are none."""
    lines: list[Line] = []
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, text in enumerate(_text(path, problems).splitlines(), 1):
            if not text.strip():
                continue
            try:
                lines += _lines(path.stem, json.loads(text))
            except (ValueError, RecursionError) as error:
                problems.append(Problem(place=f"{path}:{number}", reason=said(error)))
    return lines, problems


def _text(path: Path, problems: list[Problem]) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        problems.append(Problem(place=str(path), reason=said(error)))
        return ""


def _lines(stem: str, entry: Any) -> Iterator[Line]:
    if not isinstance(entry, dict):
        raise ValueError(f"no entry of a history: JSON of type {type(entry).__name__}")
    metrics = entry.get("metrics")
    values = metrics if isinstance(metrics, dict) else {str(entry.get("metric")): entry}
    rest = {
        str(name): str(value)
        for name, value in entry.items()
        if isinstance(value, str | int | float)
    }
    when = next((str(entry[name]) for name in TIMES if entry.get(name)), "")
    key = str(entry.get("key") or entry.get("name") or entry.get("cell") or stem)
    for name, value in values.items():
        number = value.get("value") if isinstance(value, Mapping) else value
        if isinstance(number, int | float) and isfinite(number):
            yield Line(key=key, metric=str(name), value=float(number), when=when, rest=rest)
