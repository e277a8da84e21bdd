"""Runs of a cell on one kind of machine over time, with what was accepted in between."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import AwareDatetime

from harness.comparing.comparable import reasons_against_run
from harness.comparing.sides import label_of
from harness.record import RunRecord
from harness.schema import Part
from harness.tracking.baselines import Baseline, Key, accepted, key_of, latencies_of
from harness.tracking.lines import append, read

HISTORY = "history.jsonl"


class Row(Part):
    """A run as it is remembered; reasons: against its use, none of a valid one."""

    key: Key
    label: str
    started_at: AwareDatetime
    run: str
    sha: str | None
    metrics: dict[str, float]
    reasons: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """Whether it may be compared with."""
        return not self.reasons


@dataclass(frozen=True)
class Series:
    """One key: its runs by time, each once, and the baselines that were accepted for it."""

    key: Key
    rows: tuple[Row, ...]
    marks: tuple[Baseline, ...]

    @property
    def since_accepted(self) -> tuple[Row, ...]:
        """The valid runs from the last accepted one on; before it, something else was expected."""
        if not self.marks:
            return tuple(row for row in self.rows if row.valid)
        mark = self.marks[-1]
        first = Row(
            key=mark.key,
            label=mark.label,
            started_at=mark.started_at,
            run=mark.run,
            sha=mark.sha,
            metrics=mark.metrics,
        )
        later = (row for row in self.rows if row.valid and row.started_at > mark.started_at)
        return (first, *later)


def row_of(record: RunRecord) -> Row:
    """What is remembered of a run; ValueError of a record without a cell."""
    key = key_of(record)
    if key is None:
        raise ValueError("a record without a cell has no history")
    return Row(
        key=key,
        label=label_of(record),
        started_at=record.run.started_at,
        run=record.run.uid,
        sha=None if record.env.git is None else record.env.git.sha,
        metrics=latencies_of(record),
        reasons=tuple(reasons_against_run(record)),
    )


def remember(folder: Path, row: Row) -> None:
    """Add a run, unless it is there already."""
    if all(known.run != row.run for known in read(folder / HISTORY, Row).rows):
        append(folder / HISTORY, row)


def series(folder: Path) -> list[Series]:
    """Every key that has runs or a baseline, in the order in which they came up."""
    rows, marks = read(folder / HISTORY, Row).rows, accepted(folder).rows
    found = [*(row.key for row in rows), *(mark.key for mark in marks)]
    keys = dict.fromkeys(key.model_dump_json() for key in found)
    return [_series(Key.model_validate_json(text), rows, marks) for text in keys]


def series_of(folder: Path, key: Key) -> Series:
    """The runs of one key; none where there are none."""
    return _series(key, read(folder / HISTORY, Row).rows, accepted(folder).rows)


def _series(key: Key, rows: Sequence[Row], marks: Sequence[Baseline]) -> Series:
    ours = {row.run: row for row in rows if row.key == key}
    return Series(
        key,
        tuple(sorted(ours.values(), key=lambda row: row.started_at)),
        tuple(mark for mark in marks if mark.key == key),
    )
