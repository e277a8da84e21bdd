"""Trials in the store: `<experiment>/<cell>/<trial>/`, each there whole or not at all.

A trial is a folder with a record, its samples and requests as JSON lines, whatever came beside
them, a manifest with a checksum of each file, and COMPLETE, which names the manifest's own.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import ValidationError

from harness.record import Cell, RequestTimes, RunRecord, Sample
from harness.schema import Part
from harness.stored.files import write_folder
from harness.stored.identity import SHORT

RECORD, SAMPLES, REQUESTS, LOG = "record.json", "samples.jsonl", "requests.jsonl", "log.txt"
MANIFEST, COMPLETE = "manifest.json", "COMPLETE"
# What `write_trial` makes of a record; anything else lies beside.
OWN = frozenset({RECORD, SAMPLES, REQUESTS, MANIFEST, COMPLETE})
NOTHING: Mapping[str, bytes] = MappingProxyType({})
UNNAMED = "runs"
AnyPart = TypeVar("AnyPart", bound=Part)


class DamagedError(Exception):
    """A folder that should be a trial and cannot be read as one; the message is the reason."""


@dataclass(frozen=True)
class Trial:
    """One run of a cell, as it is kept. record: without its samples, a file of their own."""

    folder: Path
    record: RunRecord

    @property
    def cell_folder(self) -> Path:
        """Where the trials of the same cell are."""
        return self.folder.parent

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """Every request through every arm, with its answer."""
        return tuple(_lines(self.folder / SAMPLES, Sample)) or self.record.samples

    @cached_property
    def requests(self) -> tuple[RequestTimes, ...]:
        """Every request through every arm, with the time of each token."""
        return tuple(_lines(self.folder / REQUESTS, RequestTimes))


@dataclass(frozen=True)
class Damaged:
    """A folder in the place of a trial that is none, and why."""

    folder: Path
    reason: str


def write_trial(
    record: RunRecord,
    root: Path,
    requests: Sequence[RequestTimes] = (),
    beside: Mapping[str, bytes] = NOTHING,
) -> Path:
    """Write a trial under `root`, durably and at once; its folder.

    beside: other files of the trial, by name, such as `log.txt` or pictures.
    """
    content = (record.model_copy(update={"samples": ()}).model_dump_json(indent=1) + "\n").encode()
    files = {
        RECORD: content,
        SAMPLES: _as_lines(record.samples),
        REQUESTS: _as_lines(requests),
        **beside,
    }
    sums = {name: {"sha256": _sha256(one), "bytes": len(one)} for name, one in files.items()}
    manifest = (json.dumps(sums, indent=1) + "\n").encode()
    complete = {MANIFEST: manifest, COMPLETE: f"{_sha256(manifest)}\n".encode()}
    return write_folder(cell_folder(root, record), trial_name(record), {**files, **complete})


def read_trial(folder: Path) -> Trial:
    """A trial whose files are what was written; raises DamagedError with the reason."""
    try:
        return Trial(folder, _record(_intact(folder)[RECORD]))
    except FileNotFoundError as error:
        raise DamagedError(f"{Path(error.filename).name} is missing") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from None


def scan(root: Path) -> Iterator[Trial | Damaged]:
    """Everything in the place of a trial, by experiment and cell, the trials of a cell by time."""
    for cell in sorted(root.glob("[!.]*/[!.]*/")):
        yield from in_cell(cell)


def in_cell(cell: Path) -> Iterator[Trial | Damaged]:
    """Everything in the place of a trial in the folder of a cell, by time."""
    for folder in sorted(cell.glob("[!.]*/")):
        try:
            trial = read_trial(folder)
        except DamagedError as error:
            yield Damaged(folder, str(error))
            continue
        place = Path(cell_folder(Path(), trial.record).name) / trial_name(trial.record)
        is_there = place.parts == folder.parts[-2:]
        yield trial if is_there else Damaged(folder, f"a copy: its place is {place}")


def trials(root: Path) -> list[Trial]:
    """The trials under `root` that can be read."""
    return [found for found in scan(root) if isinstance(found, Trial)]


def read_record(path: Path) -> RunRecord:
    """The record of a file that stands alone, of any version that we know."""
    return RunRecord.model_validate_json(path.read_bytes())


def cell_folder(root: Path, record: RunRecord) -> Path:
    """Where the trials of this record's cell are."""
    if record.cell is None:
        return root / UNNAMED / record.run.uid[:SHORT]
    return folder_of(root, record.cell)


def folder_of(root: Path, cell: Cell) -> Path:
    """Where the trials of a cell are."""
    return root / _safe(cell.experiment) / cell.hash[:SHORT]


def trial_name(record: RunRecord) -> str:
    """When, what, and enough of the uid: sorts by time and names no two runs alike."""
    started = record.run.started_at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{started}-{_safe(record.system.algo)}-{record.run.uid[:8]}"


def _intact(folder: Path) -> dict[str, bytes]:
    """The files of a manifest by name, each as it was written."""
    manifest = (folder / MANIFEST).read_bytes()
    if (folder / COMPLETE).read_text().strip() != _sha256(manifest):
        raise DamagedError(f"{MANIFEST} is not the one that {COMPLETE} names")
    sums = json.loads(manifest)
    files = {name: (folder / name).read_bytes() for name in sums}
    for name, content in files.items():
        if _sha256(content) != sums[name]["sha256"]:
            raise DamagedError(f"{name} is not what was written: {len(content)} bytes")
    return files


def _record(content: bytes) -> RunRecord:
    try:
        return RunRecord.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DamagedError(f"{RECORD} is no record: {key}: {first['msg']}") from None


def _safe(name: str) -> str:
    return re.sub(r"[^\w+.-]", "_", name).lstrip(".") or UNNAMED


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _as_lines(parts: Iterable[Part]) -> bytes:
    return "".join(f"{part.model_dump_json()}\n" for part in parts).encode()


def _lines(path: Path, kind: type[AnyPart]) -> Iterator[AnyPart]:
    for line in path.read_text().splitlines() if path.exists() else ():
        yield kind.model_validate_json(line)
