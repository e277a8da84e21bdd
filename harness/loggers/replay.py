"""Sends what a logger has not got: the pending trials of a store, or all of them to a named one."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from harness.listing import CONF
from harness.loggers.notes import pending, read_note
from harness.loggers.send import NO_VARIABLES, send
from harness.settings import LoggerSettings
from harness.stored.trials import DamagedError, Trial, read_trial, trials

OK, USAGE, FAILED = 0, 2, 4


@dataclass(frozen=True)
class Task:
    """A trial to be sent. variables: of the environment of its run, where those are known."""

    folder: Path
    logger: str
    variables: Mapping[str, str]


def replay(store: Path, logger: str | None, *, again: bool, changes: Sequence[str]) -> int:
    """Send what is pending, or all that `logger` has not got; the exit code.

    again: also what it has got; changes: of the logger's settings, as key=value.
    """
    if not store.is_dir():
        return _refuse(f"{store}: there is no such store")
    if again and logger is None:
        return _refuse("--again needs --logger")
    try:
        tasks = list(_pending(store) if logger is None else _all(store, logger, again=again))
        # Before anything is sent: a change that does not fit is a slip of the user.
        jobs = [(task, settings_of(task, changes)) for task in tasks]
    except ValueError as error:
        return _refuse(str(error))
    failures = 0
    for task, settings in jobs:
        reason = (
            settings if isinstance(settings, str) else send(task.folder, settings, task.variables)
        )
        if reason is not None:
            failures += 1
            print(f"kvloom: {task.folder}: {task.logger}: {reason}", file=sys.stderr)
    print(f"{len(jobs) - failures} sent, {failures} failed")
    return FAILED if failures else OK


def settings_of(task: Task, changes: Sequence[str]) -> LoggerSettings | str:
    """The settings of the trial's own run if it had this logger, else those of `conf/logger`.

    Why there are none, if the trial cannot be read; raises ValueError if the logger is unknown.
    """
    try:
        trial = read_trial(task.folder)
    except DamagedError as error:
        return str(error)
    return changed(_own(trial, task.logger) or _of_conf(task.logger), changes)


def changed(settings: Mapping[str, Any], changes: Sequence[str]) -> LoggerSettings:
    """Settings of a logger with some changed; raises ValueError in one line."""
    base = OmegaConf.create(dict(settings))
    OmegaConf.set_struct(base, True)
    try:
        merged = OmegaConf.merge(base, OmegaConf.from_dotlist(list(changes)))
        return LoggerSettings.model_validate(OmegaConf.to_container(merged, resolve=True))
    except (OmegaConfBaseException, ValidationError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"--set {' '.join(changes)}: {first}") from None


def _pending(store: Path) -> Iterator[Task]:
    for cell, note in pending(store):
        yield Task(cell / note.trial, note.logger, note.variables)


def _all(store: Path, logger: str, *, again: bool) -> Iterator[Task]:
    _of_conf(logger)
    for trial in trials(store):
        note = read_note(trial.cell_folder, trial.folder.name, logger)
        if note is None or note.state == "pending" or again:
            yield Task(trial.folder, logger, note.variables if note else NO_VARIABLES)


def _own(trial: Trial, name: str) -> dict[str, Any] | None:
    settings = trial.record.config.resolved.get("logger")
    if isinstance(settings, dict) and settings.get("name") == name and settings.get("target"):
        return dict(settings)
    return None


def _of_conf(name: str) -> dict[str, Any]:
    known = [path.stem for path in sorted((CONF / "logger").glob("*.yaml")) if path.stem != "none"]
    if name not in known:
        raise ValueError(f"--logger {name}: there is no such logger; choose {', '.join(known)}")
    content = OmegaConf.to_container(OmegaConf.load(CONF / "logger" / f"{name}.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _refuse(message: str) -> int:
    print(f"kvloom: {message}", file=sys.stderr)
    return USAGE
