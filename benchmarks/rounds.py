"""Interleaved rounds of competitors, and a table of medians against the first of them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from harness.environment import environment, measurement

Competitor = Callable[[], float]


def interleave(competitors: Mapping[str, Competitor], num_rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each competitor in each round, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in competitors}
    names = list(competitors)
    for number in range(num_rounds + 1):
        for name in names if number % 2 == 0 else names[::-1]:
            elapsed = competitors[name]()
            if number > 0:
                times[name].append(elapsed)
    return times


def ratio(times: Mapping[str, list[float]], name: str, baseline: str) -> float:
    """Median over rounds of a competitor's time by the baseline's of the same round."""
    return median(a / b for a, b in zip(times[name], times[baseline], strict=True))


def show(title: str, rows: Mapping[str, dict[str, list[float]]], console: Console) -> None:
    """One row per setting and competitor; the first competitor is the baseline."""
    table = Table(title=title)
    for column in ("setting", "arm", "median ms", "least", "most", "ratio"):
        table.add_column(column, justify="left" if column in ("setting", "arm") else "right")
    for setting, times in rows.items():
        baseline = next(iter(times))
        for name, values in times.items():
            numbers = (median(values), min(values), max(values), ratio(times, name, baseline))
            table.add_row(setting, name, *(f"{number:.2f}" for number in numbers))
    console.print(table)


def save(path: Path, title: str, rows: Mapping[str, dict[str, list[float]]], **facts: Any) -> None:
    """The rounds, and the machine they ran on."""
    rounds = len(next(iter(next(iter(rows.values())).values())))
    content = {
        "title": title,
        "unit": "ms",
        "rounds": rows,
        "num_rounds": rounds,
        "facts": facts,
        "measurement": measurement(warmup=1, interleaving="round").model_dump(mode="json"),
        "env": environment().model_dump(mode="json"),
        "torch_threads": torch.get_num_threads(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
