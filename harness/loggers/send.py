"""Sends a trial of the store to a logger: in time or not at all, and nothing here ever raises."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.build import find
from harness.exits import complain
from harness.loggers.base import Logger
from harness.loggers.limited import run_limited
from harness.loggers.notes import Note, write_note
from harness.settings import LoggerSettings

CHILD = Path(__file__).with_name("child.py")
NOT_DONE = "was stopped before it was done"
NO_VARIABLES: Mapping[str, str] = {}


def tell(folder: Path, settings: LoggerSettings) -> None:
    """Tell the logger of a trial, or say in one line why that has to wait."""
    if reason := send(folder, settings):
        complain(f"logger={settings.name}: {reason}; python harness/sync.py sends it later")


def send(
    folder: Path, settings: LoggerSettings, variables: Mapping[str, str] = NO_VARIABLES
) -> str | None:
    """Tell the logger of a trial, and note beside it how that went; the reason if it failed.

    variables: of the environment of the run, where this process is another one.
    """
    if settings.target is None:
        return None
    try:
        return _send(folder, settings, variables)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _send(folder: Path, settings: LoggerSettings, variables: Mapping[str, str]) -> str | None:
    assert settings.target is not None
    note = Note(
        trial=folder.name, logger=settings.name, state="pending", reason=NOT_DONE, variables={}
    )
    # First of all: whatever ends this process now, the trial is known as not sent.
    write_note(folder.parent, note)
    environment = {**os.environ, **variables}
    kind: type[Logger] = find(settings.target, "logger.target")
    kept = {name: environment[name] for name in kind.kept_variables if name in environment}
    note = note.model_copy(update={"variables": kept})
    write_note(folder.parent, note)
    job = {
        "folder": str(folder.resolve()),
        "logger": settings.model_dump(mode="json", by_alias=True),
    }
    reason = run_limited(
        [sys.executable, str(CHILD)], json.dumps(job), environment, timeout_s=settings.timeout_s
    )
    changes = {"reason": reason, "state": "done" if reason is None else "pending"}
    write_note(folder.parent, note.model_copy(update=changes))
    return reason
