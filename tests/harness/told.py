"""What tests of loggers share: their settings, trials to tell of, and how that went."""

from pathlib import Path
from typing import Any

from harness.composing import composed
from harness.loggers.notes import read_note
from harness.record import RunRecord
from harness.recording import build_record
from harness.settings import LoggerSettings
from harness.stored.trials import read_trial, write_trial
from tests.harness.facts import facts

# A crowded machine is slow at importing; the limit itself has tests of its own.
PATIENT = "logger.timeout_s=300"


def logger(name: str, *overrides: str) -> LoggerSettings:
    return LoggerSettings.model_validate(
        composed([f"logger={name}", PATIENT, *overrides])["logger"]
    )


def written(root: Path, **changes: Any) -> Path:
    return write_trial(build_record(facts(**changes)), root)


def record_of(folder: Path) -> RunRecord:
    return read_trial(folder).record


def state(folder: Path, name: str) -> tuple[str, str | None]:
    note = read_note(folder.parent, folder.name, name)
    assert note is not None
    return note.state, note.reason
