"""The cells as CSV: a row for each cell and arm, a column for each number and its interval."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

from harness.reporting.cells import ArmShown, CellShown
from harness.reporting.quantities import QUANTITIES
from harness.reporting.readings import Reading

AXES = (
    *("experiment", "algo", "budget", "fraction", "tier", "cache", "partition", "backend"),
    *("kernel", "model", "task", "length", "requests", "planned", "seed", "sparsity"),
)
# Of the change of scores against the baseline, beside its value and interval.
VERDICT = ("num_worse", "num_better", "p", "margin", "verdict", "needed")
# A text that starts so is a formula to a spreadsheet.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(cells: Sequence[CellShown]) -> str:
    """The whole file; what was not observable is empty."""
    rows = [row for cell in cells for row in rows_of(cell)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    buffer = StringIO()
    writer = csv.DictWriter(buffer, columns or ["cell"], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def rows_of(cell: CellShown) -> Iterator[dict[str, Any]]:
    """A row for each arm; one with reasons alone where none was measured."""
    last = cell.trials[-1]
    first = {
        "cell": cell.id,
        **{axis: harmless(cell.what.get(axis)) for axis in AXES},
        "commit": cell.env.get("commit"),
        "hardware": harmless(cell.env.get("hardware")),
        "trials": len(cell.trials),
        "status": "ok" if cell.valid else last.status,
        "current": cell.current,
        "simulated": cell.simulated,
        "reasons": harmless("; ".join(last.reasons)),
    }
    for name, arm in cell.arms.items():
        bound = cell.bound and name != cell.baseline
        yield {**first, "arm": harmless(name), "bound": bound, **numbers_of(arm)}
    if not cell.arms:
        yield first


def numbers_of(arm: ArmShown) -> dict[str, Any]:
    """Every number of an arm, each with its interval and how it was measured."""
    named = {key: arm.readings.get(key) for key in QUANTITIES}
    tasks = {f"score_{task}": one for task, one in arm.tasks.items()}
    moved = {f"moved_{pair.replace('->', '_to_')}": one for pair, one in arm.moved.items()}
    numbers = {
        column: value
        for name, one in (named | tasks | moved).items()
        for column, value in _columns(name, one).items()
    }
    return numbers | {f"acc_{name}": getattr(arm.change, name, None) for name in VERDICT}


def _columns(name: str, one: Reading | None) -> Mapping[str, Any]:
    keys = (name, f"{name}_low", f"{name}_high", f"{name}_n", f"{name}_how")
    values = (None,) * 5 if one is None else (one.value, one.lo, one.hi, one.n, one.how)
    return dict(zip(keys, values, strict=True))


def harmless(value: Any) -> Any:
    """The value; a text that a spreadsheet would run gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
