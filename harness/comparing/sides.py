"""A side of a comparison: the trials that a path names, and what of them may be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.record import Arm, RunRecord, Sample
from harness.stored.identity import SHORT
from harness.stored.trials import COMPLETE, RECORD, DamagedError, Trial, read_record, read_trial


@dataclass(frozen=True)
class Loaded:
    """The trials of one side, oldest first, and why others could not be read."""

    trials: tuple[Trial, ...]
    problems: tuple[str, ...] = ()


def load(path: Path) -> Loaded:
    """What is there: a trial, the trials of a cell, an experiment or a store, or one record."""
    if path.is_file():
        return _record_file(path)
    if not path.is_dir():
        return Loaded((), (f"{path} is not there",))
    folders = [path] if _is_trial(path) else _trial_folders(path)
    trials, problems = [], []
    for folder in folders:
        try:
            trials.append(read_trial(folder))
        except DamagedError as error:
            problems.append(f"{folder}: {error}")
    if not folders:
        problems.append(f"{path} holds no trial")
    return Loaded(by_time(trials), tuple(problems))


def by_time(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """In the order in which they ran."""
    return tuple(sorted(trials, key=lambda trial: trial.record.run.started_at))


def cell_of(record: RunRecord) -> str:
    """The name of a record's cell; a record of the first version has none of its own."""
    return record.cell.hash[:SHORT] if record.cell is not None else f"record {record.run.uid[:8]}"


def label_of(record: RunRecord) -> str:
    """What a cell is, in words."""
    system, prompts = record.system, record.workload.prompt_tokens
    length = "" if prompts is None else f" {prompts.median:.0f}"
    return f"{system.algo} {system.tier} {record.workload.task}{length}"


def arm_under_test(record: RunRecord, named: str | None = None) -> str | None:
    """The arm that is compared: the one named, else the one that is no baseline; None if absent."""
    if named is not None:
        return named if named in record.arms else None
    others = [name for name in record.arms if name != record.baseline]
    return next(iter(others or record.arms), None)


def arm_of(record: RunRecord, named: str | None) -> Arm | None:
    """The arm itself."""
    name = arm_under_test(record, named)
    return None if name is None else record.arms[name]


def samples_of(trial: Trial, named: str | None) -> list[Sample]:
    """The requests through the arm under test."""
    name = arm_under_test(trial.record, named)
    return [sample for sample in trial.samples if sample.arm == name]


def _is_trial(folder: Path) -> bool:
    return (folder / RECORD).exists() or (folder / COMPLETE).exists()


def _trial_folders(folder: Path) -> list[Path]:
    """Every folder in the place of a trial, one to three levels down."""
    found = {path.parent for depth in ("", "*/", "*/*/") for path in folder.glob(f"{depth}[!.]*/*")}
    return sorted(one for one in found if one.is_dir() and _is_trial(one))


def _record_file(path: Path) -> Loaded:
    if (path.parent / COMPLETE).exists():
        return load(path.parent)
    try:
        record = read_record(path)
    except (OSError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        return Loaded((), (f"{path} is no record: {reason}",))
    return Loaded((Trial(path.parent, record),))
