"""What a report is about: trials, findings, and whatever could not be read, with reasons."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.record import SCHEMA_VERSION, RequestTimes, RunRecord, Sample
from harness.stored.trials import RECORD, Damaged, DamagedError, Trial, read_trial, scan

# How much of a message is shown: a pydantic error quotes the input.
MOST_OF_A_REASON = 300


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One run that can be read, and where it lies; samples: None if they cannot be read."""

    place: str
    record: RunRecord
    samples: tuple[Sample, ...]
    requests: tuple[RequestTimes, ...]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that should be a run and is none, or not whole."""

    place: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A file of a study or a benchmark, as it was read."""

    place: str
    content: Mapping[str, Any]


@dataclass(kw_only=True)
class Gathered:
    """Everything that was found at `sources`."""

    sources: tuple[str, ...]
    seen: list[Seen] = field(default_factory=list)
    damaged: list[Problem] = field(default_factory=list)
    studies: list[Finding] = field(default_factory=list)
    splits: list[Finding] = field(default_factory=list)


def gather(paths: Sequence[Path]) -> Gathered:
    """Read stores, trials, records and findings; what cannot be read is listed, never raised."""
    found = Gathered(sources=tuple(map(str, paths)))
    for path in paths:
        if path.is_file():
            _read_file(path, found)
        elif (path / RECORD).exists():
            _keep(_trial(path), found)
        else:
            _read_folder(path, found)
    return found


def _read_folder(root: Path, found: Gathered) -> None:
    """A store; a folder without trials may hold records that stand alone."""
    empty = True
    for entry in scan(root):
        empty = False
        _keep(entry, found, root)
    if empty:
        for path in sorted(root.glob("*.json")):
            _read_file(path, found)


def _trial(folder: Path) -> Trial | Damaged:
    try:
        return read_trial(folder)
    except DamagedError as error:
        return Damaged(folder, str(error))


def _keep(entry: Trial | Damaged, found: Gathered, root: Path | None = None) -> None:
    place = str(entry.folder.relative_to(root) if root else entry.folder)
    if isinstance(entry, Damaged):
        found.damaged.append(Problem(place=place, reason=shortened(entry.reason)))
        return
    try:
        samples, requests = entry.samples, entry.requests
    except (OSError, ValueError) as error:
        reason = f"its samples cannot be read: {said(error)}"
        found.damaged.append(Problem(place=place, reason=reason))
        samples, requests = (), ()
    found.seen.append(Seen(place=place, record=entry.record, samples=samples, requests=requests))


def _read_file(path: Path, found: Gathered) -> None:
    """A record that stands alone, a study, a benchmark, or a stranger."""
    try:
        _take(path, path.read_bytes(), found)
    except (OSError, ValueError, RecursionError) as error:
        found.damaged.append(Problem(place=str(path), reason=said(error)))


def _take(path: Path, content: bytes, found: Gathered) -> None:
    if not content.strip():
        raise ValueError("the file is empty")
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"not a record: JSON of type {type(value).__name__}")
    if "schema_version" in value:
        record = _record(value["schema_version"], content)
        one = Seen(place=str(path), record=record, samples=record.samples, requests=())
        found.seen.append(one)
    elif value.get("kind") == "algorithms" and isinstance(value.get("points"), list):
        found.studies.append(Finding(place=str(path), content=value))
    elif has_splits(value):
        found.splits.append(Finding(place=str(path), content=value))
    else:
        known = ", ".join(sorted(map(str, value))[:5]) or "nothing"
        raise ValueError(f"not a record: it has no schema_version; its keys are {known}")


def _record(version: Any, content: bytes) -> RunRecord:
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ValueError(
            f"schema version {version} is newer than this code reads: {SCHEMA_VERSION}"
        )
    return RunRecord.model_validate_json(content)


def has_splits(value: Mapping[str, Any]) -> bool:
    """Whether a benchmark says where the time of a decode step goes, by algorithm."""
    return any(True for _ in splits_of(value))


def splits_of(value: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The batch, the algorithm and what was found of it, where it has a split of its step."""
    facts = value.get("facts")
    by_batch = facts.get("algorithms") if isinstance(facts, dict) else None
    for batch, by_algo in _items(by_batch):
        for algo, one in _items(by_algo):
            if isinstance(one, dict) and isinstance(one.get("split_ms"), dict):
                yield str(batch), str(algo), one


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    return value.items() if isinstance(value, dict) else ()


def said(error: BaseException) -> str:
    """What an error says, in one line; of a pydantic one, the first key and why."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        return shortened(f"no record: {key}: {first['msg']}")
    if isinstance(error, json.JSONDecodeError):
        return shortened(f"no JSON, or cut off: {error}")
    return shortened(str(error) or type(error).__name__)


def shortened(text: str) -> str:
    """One line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_OF_A_REASON else f"{line[:MOST_OF_A_REASON]} ..."
