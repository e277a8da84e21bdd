"""A line for each trial, to look things up in: made from the store anew at any time.

A line says what the header of a record says, and that its sum is right. Whether a record is whole
to the last key is for `harness.stored.checking` to say, which takes longer.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from harness.record import Budget, Cell, RunRecord, RunStatus, Verdict
from harness.schema import Part
from harness.stored.files import replace_durably
from harness.stored.identity import SHORT
from harness.stored.trials import COMPLETE, MANIFEST, RECORD

INDEX = "index.jsonl"
KNOWN = frozenset(get_args(RunRecord.model_fields["schema_version"].annotation))
# Below, starting processes takes longer than reading.
MANY = 400
PER_TASK = 64


class _Header(BaseModel):
    """What is read of a part of a record; the rest is passed over."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class _Run(_Header):
    uid: str
    status: RunStatus
    verdict: Verdict
    started_at: datetime
    duration_s: float


class _Model(_Header):
    id: str


class _System(_Header):
    algo: str
    tier: str
    cache: str
    partition: str
    model: _Model
    requested_budget: Budget


class _Workload(_Header):
    task: str
    n_done: int


class _Env(_Header):
    fingerprint: str


class _Value(_Header):
    value: float | None


class _Accuracy(_Header):
    macro: _Value


class _Metrics(_Header):
    kv_cache_hit_rate: _Value | None = None


class _Ratios(_Header):
    tpot_ratio: _Value | None = None
    ttft_ratio: _Value | None = None
    kv_read_bytes_per_decode_step_ratio: _Value | None = None


class _Arm(_Header):
    accuracy: _Accuracy
    metrics: _Metrics


class RecordHeader(_Header):
    """The parts of a record that an index needs."""

    schema_version: int
    run: _Run
    cell: Cell | None = None
    system: _System
    workload: _Workload
    env: _Env
    baseline: str
    arms: dict[str, _Arm]
    comparisons: dict[str, _Ratios]


class Stamp(Part):
    """Of a manifest: as long as it stays, the trial is the one that was indexed."""

    bytes: int
    mtime_ns: int
    inode: int


class Row(Part):
    """A trial, or something in its place and why it is none. folder: below the root."""

    folder: str
    stamp: Stamp | None = None
    damage: str | None = None
    uid: str | None = None
    status: RunStatus | None = None
    valid: bool | None = None
    started_at: str | None = None
    duration_s: float | None = None
    cell: Cell | None = None
    algo: str | None = None
    tier: str | None = None
    cache: str | None = None
    partition: str | None = None
    model: str | None = None
    budget: Budget | None = None
    task: str | None = None
    n_done: int | None = None
    fingerprint: str | None = None
    accuracy: float | None = None
    tpot_ratio: float | None = None
    ttft_ratio: float | None = None
    kv_read_ratio: float | None = None
    hit_rate: float | None = None


class Line(NamedTuple):
    """A row as text; as such it comes cheaply from another process."""

    text: str
    is_damaged: bool


@dataclass(frozen=True)
class Indexed:
    """How many rows an index has, how many of them are damaged, and how many had to be read."""

    num_rows: int
    num_damaged: int
    num_read: int


def rebuild(root: Path) -> Indexed:
    """Write `index.jsonl`; trials that did not change since are taken from the one before."""
    known = {row.folder: row for row in read_index(root)}
    lines: dict[str, Line | None] = {}
    for folder in trial_folders(root):
        old = known.get(folder)
        is_known = old is not None and old.stamp is not None and old.stamp == stamp(root / folder)
        lines[folder] = line_of(old) if old is not None and is_known else None
    missing = [folder for folder, line in lines.items() if line is None]
    lines.update(zip(missing, _read_lines(root, missing), strict=True))
    found = [line for line in lines.values() if line is not None]
    if root.is_dir():
        replace_durably(root / INDEX, "".join(line.text for line in found).encode())
    return Indexed(len(found), sum(line.is_damaged for line in found), len(missing))


def line_of(row: Row) -> Line:
    """What is written of a row."""
    return Line(f"{row.model_dump_json(exclude_none=True)}\n", row.damage is not None)


def read_index(root: Path) -> Iterator[Row]:
    """The rows of the index that is there; lines that are none are passed over."""
    path = root / INDEX
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            yield Row.model_validate_json(line)
        except ValidationError:
            continue


def trial_folders(root: Path) -> list[str]:
    """Folders in the place of a trial, below the root, in order."""
    places = [""]
    for _ in range(3):
        places = [inner for place in places for inner in _folders(root, place)]
    return sorted(places)


def read_row(root: Path, folder: str) -> Row:
    """What the header of a trial says."""
    path = root / folder
    try:
        seen = stamp(path)
        return _row(folder, seen, _header(path))
    except ValidationError as error:
        first = error.errors()[0]
        damage = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    except (OSError, ValueError, LookupError, TypeError) as error:
        damage = f"{type(error).__name__}: {error}".replace(str(path), path.name)
    return Row(folder=folder, damage=damage)


def stamp(folder: Path) -> Stamp | None:
    """Of the manifest of a trial; None if there is none."""
    try:
        seen = (folder / MANIFEST).stat()
    except OSError:
        return None
    return Stamp(bytes=seen.st_size, mtime_ns=seen.st_mtime_ns, inode=seen.st_ino)


def _read_lines(root: Path, folders: Sequence[str]) -> list[Line]:
    """By all cores where there are many."""
    if len(folders) < MANY:
        return [_read_line(root, folder) for folder in folders]
    with ProcessPoolExecutor() as pool:
        return list(pool.map(partial(_read_line, root), folders, chunksize=PER_TASK))


def _read_line(root: Path, folder: str) -> Line:
    return line_of(read_row(root, folder))


def _header(path: Path) -> RecordHeader:
    manifest = (path / MANIFEST).read_bytes()
    if (path / COMPLETE).read_text().strip() != hashlib.sha256(manifest).hexdigest():
        raise ValueError(f"{MANIFEST} is not the one that {COMPLETE} names")
    content = (path / RECORD).read_bytes()
    if hashlib.sha256(content).hexdigest() != from_json(manifest)[RECORD]["sha256"]:
        raise ValueError(f"{RECORD} is not what was written: {len(content)} bytes")
    header = RecordHeader.model_validate_json(content)
    cell = header.cell.hash[:SHORT] if header.cell else header.run.uid[:SHORT]
    if path.parent.name != cell or not path.name.endswith(header.run.uid[:8]):
        raise ValueError(f"a copy of run {header.run.uid[:8]} of cell {cell}")
    if header.schema_version not in KNOWN:
        raise ValueError(f"schema_version {header.schema_version} is not of {sorted(KNOWN)}")
    return header


def _row(folder: str, seen: Stamp | None, header: RecordHeader) -> Row:
    arm = next((name for name in header.arms if name != header.baseline), header.baseline)
    measured, ratios = header.arms.get(arm), header.comparisons.get(arm, _Ratios())
    system = header.system
    return Row(
        folder=folder,
        stamp=seen,
        uid=header.run.uid,
        status=header.run.status,
        valid=header.run.verdict.valid,
        started_at=header.run.started_at.isoformat(),
        duration_s=header.run.duration_s,
        cell=header.cell,
        algo=system.algo,
        tier=system.tier,
        cache=system.cache,
        partition=system.partition,
        model=system.model.id,
        budget=system.requested_budget,
        task=header.workload.task,
        n_done=header.workload.n_done,
        fingerprint=header.env.fingerprint,
        accuracy=_value(measured.accuracy.macro if measured else None),
        tpot_ratio=_value(ratios.tpot_ratio),
        ttft_ratio=_value(ratios.ttft_ratio),
        kv_read_ratio=_value(ratios.kv_read_bytes_per_decode_step_ratio),
        hit_rate=_value(measured.metrics.kv_cache_hit_rate if measured else None),
    )


def _value(metric: _Value | None) -> float | None:
    return None if metric is None else metric.value


def _folders(root: Path, place: str) -> list[str]:
    try:
        with os.scandir(root / place) as entries:
            names = [one.name for one in entries if one.name[0] != "." and one.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{place}/{name}" if place else name for name in names]
