"""What is noted beside the trials of a cell: which logger has which of them, and why one has not.

A note is `<experiment>/<cell>/.sync/<trial>.<logger>.json`: outside of the trial, which never
changes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from harness.schema import Part
from harness.stored.files import replace_durably

FOLDER = ".sync"


class Note(Part):
    """One trial and one logger. reason: why it is pending.

    variables: of the environment that the run had, which tell the logger where it belongs.
    """

    trial: str
    logger: str
    state: Literal["pending", "done"]
    reason: str | None
    variables: dict[str, str]


def write_note(cell: Path, note: Note) -> None:
    """Write a note over the one of the same trial and logger."""
    content = (note.model_dump_json(indent=1) + "\n").encode()
    replace_durably(_path(cell, note.trial, note.logger), content)


def read_note(cell: Path, trial: str, logger: str) -> Note | None:
    """The note on a trial and a logger; None if there is none that can be read."""
    return _read(_path(cell, trial, logger))


def pending(root: Path) -> Iterator[tuple[Path, Note]]:
    """The cells and notes of a store that are pending, by experiment, cell and trial."""
    for path in sorted(root.glob(f"[!.]*/[!.]*/{FOLDER}/[!.]*.json")):
        note = _read(path)
        if note is not None and note.state == "pending":
            yield path.parent.parent, note


def _path(cell: Path, trial: str, logger: str) -> Path:
    return cell / FOLDER / f"{trial}.{logger}.json"


def _read(path: Path) -> Note | None:
    try:
        return Note.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
