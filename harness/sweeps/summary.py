"""The cells of a sweep side by side, medians over its rounds."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.metric import Metric
from harness.record import RunRecord
from harness.stored.trials import DamagedError, read_trial
from harness.sweeps.job import Done
from harness.units import UNKNOWN, percent, ratio

COLUMNS = ("accuracy", "TPOT", "TTFT", "KV read", "hit rate")


def print_summary(ended: Sequence[Done], console: Console) -> None:
    """Print a table, a row for each cell, in the order of the first round."""
    cells: dict[str, list[Done]] = {}
    for done in ended:
        cells.setdefault(done.label.partition(", round ")[0], []).append(done)
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("cell", overflow="fold")
    for name in COLUMNS:
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("status", overflow="fold")
    for name, rounds in cells.items():
        shown.add_row(*map(Text, (name, *values(records(rounds)), statuses(rounds))))
    console.print(shown)
    told = "TPOT, TTFT, KV read: ratios to dense; medians over rounds"
    console.print(Text(told, style="dim"))


def statuses(rounds: Sequence[Done]) -> str:
    """How the rounds of a cell went."""
    counts = Counter(done.verdict for done in rounds)
    if len(counts) == 1 and sum(counts.values()) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def records(rounds: Sequence[Done]) -> list[RunRecord]:
    """The records of those rounds that went well."""
    found = []
    for done in rounds:
        if done.status == "ok" and done.folder is not None:
            try:
                found.append(read_trial(Path(done.folder)).record)
            except DamagedError:
                continue
    return found


def values(found: Sequence[RunRecord]) -> list[str]:
    """The cells of a row."""
    return [
        _of(found, lambda one: _arm_accuracy(one), ratio),
        _of(found, lambda one: _compared(one, "tpot_ratio"), _times),
        _of(found, lambda one: _compared(one, "ttft_ratio"), _times),
        _of(found, lambda one: _compared(one, "kv_read_bytes_per_decode_step_ratio"), _times),
        _of(found, lambda one: _measured(one, "kv_cache_hit_rate"), percent),
    ]


def _of(
    found: Sequence[RunRecord],
    value: Callable[[RunRecord], float | None],
    text: Callable[[float], str],
) -> str:
    known = [one for one in map(value, found) if one is not None]
    return text(median(known)) if known else UNKNOWN


def _last_arm(record: RunRecord) -> str:
    """The system under test, which is dense itself where nothing else was asked for."""
    return next((name for name in record.arms if name != record.baseline), record.baseline)


def _arm_accuracy(record: RunRecord) -> float | None:
    return record.arms[_last_arm(record)].accuracy.macro.value


def _measured(record: RunRecord, name: str) -> float | None:
    return _value(record.arms[_last_arm(record)].metrics.get(name))


def _compared(record: RunRecord, name: str) -> float | None:
    return _value(record.comparisons.get(_last_arm(record), {}).get(name))


def _value(metric: Metric | None) -> float | None:
    return None if metric is None else metric.value


def _times(value: float) -> str:
    return f"{ratio(value)}x"
