"""What the page draws from, as one JSON value: short keys, repeated texts once."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from harness.reporting.axes import NUM_DIGESTS
from harness.reporting.cells import ArmShown, CellShown, cells_of
from harness.reporting.distributions import Steps
from harness.reporting.gather import Gathered
from harness.reporting.history import Line
from harness.reporting.quantities import QUANTITIES
from harness.reporting.readings import Reading
from harness.reporting.studies import splits, study_cells

# Enough for every table and pixel.
DIGITS = 6


class Texts:
    """Texts by number, each kept once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """The number of a text, new or not."""
        return self.numbers.setdefault(text, len(self.numbers))


def all_cells(gathered: Gathered) -> list[CellShown]:
    """The cells of runs, then those of studies."""
    return [
        *cells_of(gathered.seen),
        *(cell for study in gathered.studies for cell in study_cells(study)),
    ]


def payload(
    gathered: Gathered, cells: Sequence[CellShown], history: Iterable[Line]
) -> dict[str, Any]:
    """Everything that the page shows."""
    texts, envs = Texts(), Texts()
    groups = list(dict.fromkeys(cell.group for cell in cells))
    numbers = {group: number for number, group in enumerate(groups)}
    shown = [_cell(cell, numbers[cell.group], texts, envs) for cell in cells]
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": gathered.sources,
        "quantities": {
            key: {"label": one.label, "kind": one.kind, "better": one.direction}
            for key, one in QUANTITIES.items()
        },
        "groups": group_names(groups),
        "cells": shown,
        "hows": list(texts.numbers),
        "envs": [json.loads(text) for text in envs.numbers],
        "damaged": [[one.place, one.reason] for one in gathered.damaged],
        "splits": [one for finding in gathered.splits for one in splits(finding)],
        "history": [vars(line) for line in history],
    }


def group_names(groups: Sequence[tuple[str, ...]]) -> list[list[str]]:
    """The parts of each name; a digest is added only where names would be alike."""
    names = [group[:-NUM_DIGESTS] for group in groups]
    return [
        [*name, f"no. {number + 1}"] if names.count(name) > 1 else list(name)
        for number, name in enumerate(names)
    ]


def _cell(cell: CellShown, group: int, texts: Texts, envs: Texts) -> dict[str, Any]:
    return {
        "id": cell.id,
        "what": {name: one for name, one in cell.what.items() if one is not None},
        "group": group,
        "baseline": cell.baseline,
        "trials": [
            [one.place, one.uid, one.started, one.status, list(one.reasons)] for one in cell.trials
        ],
        "arms": {name: _arm(arm, texts) for name, arm in cell.arms.items()},
        "valid": cell.valid,
        **{name: True for name in ("bound", "current", "simulated") if getattr(cell, name)},
        "command": cell.command,
        "notes": [texts.number(note) for note in cell.notes],
        "env": envs.number(json.dumps(dict(cell.env), sort_keys=True)),
    }


def _arm(arm: ArmShown, texts: Texts) -> dict[str, Any]:
    parts = {
        "m": _readings(arm.readings, texts),
        "tasks": _readings(arm.tasks, texts),
        "moved": _readings(arm.moved, texts),
        "steps": {name: _steps(one) for name, one in arm.steps.items()},
    }
    return {name: one for name, one in parts.items() if one}


def _readings(readings: Mapping[str, Reading], texts: Texts) -> dict[str, list[Any]]:
    return {key: _reading(one, texts) for key, one in readings.items()}


def _reading(one: Reading, texts: Texts) -> list[Any]:
    """Value, number of observations, how; and the interval where there is one."""
    start = [rounded(one.value), one.n, texts.number(one.how)]
    if one.lo is None or one.hi is None:
        return start
    return [*start, rounded(one.lo), rounded(one.hi)]


def _steps(steps: Steps) -> list[Any]:
    return [steps.num, [rounded(value, 4) for value in steps.values]]


def rounded(value: float, digits: int = DIGITS) -> float | int:
    """To so many significant digits; whole numbers stay short."""
    if value == 0 or not math.isfinite(value):
        return 0
    near = round(value, digits - 1 - math.floor(math.log10(abs(value))))
    return int(near) if near == int(near) else near
