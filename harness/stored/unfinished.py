"""The lines of a run that has not ended: each is there whole, or the run that reads drops it.

A file beside the trials of a cell, which no reader of the store looks at.
"""

import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

# A killed process loses nothing that it wrote; a machine that goes down, this much at most.
SYNC_S = 1.0
UNFINISHED = ".unfinished"


def unfinished_name(number: int | None) -> str:
    """Of a cell's file; number: of the round of a sweep."""
    return f"{UNFINISHED}.jsonl" if number is None else f"{UNFINISHED}-{number}.jsonl"


@dataclass
class Unfinished:
    """An open file that is ours alone; lines: what it held; torn: its end was cut off."""

    path: Path
    file: BinaryIO
    lines: tuple[bytes, ...]
    torn: bool
    _synced_s: float = field(default_factory=time.monotonic)

    def append(self, line: bytes) -> None:
        """Add a line."""
        self.file.write(line + b"\n")
        self.file.flush()
        if time.monotonic() - self._synced_s >= SYNC_S:
            os.fsync(self.file.fileno())
            self._synced_s = time.monotonic()

    def cut(self, num_lines: int) -> None:
        """Keep so many lines of those that were there, the first one included."""
        self.torn = self.torn or num_lines < len(self.lines)
        self.lines = self.lines[:num_lines]
        self.file.truncate(sum(len(line) + 1 for line in self.lines))

    def discard(self) -> None:
        """The run has ended: nothing of this is needed any more."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have it."""
        self.file.close()


def outdated(folder: Path, code: list[str]) -> list[Path]:
    """Files in a cell's folder that nobody who runs this code can go on behind."""
    return [path for path in sorted(folder.glob(f"{UNFINISHED}*.jsonl")) if not _is_of(path, code)]


def _is_of(path: Path, code: list[str]) -> bool:
    with path.open("rb") as file:
        try:
            return bool(json.loads(file.readline())["code"] == code)
        except (ValueError, LookupError, TypeError):
            return False


def open_unfinished(path: Path, first: bytes, *, fresh: bool) -> Unfinished | None:
    """The file of a run; None where another process is at it.

    first: its first line, under which lines may be used; other lines, or `fresh`, begin anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    file.seek(0)
    *lines, rest = file.read().split(b"\n")
    if fresh or lines[:1] != [first]:
        file.truncate(0)
        ours = Unfinished(path, file, (first,), torn=False)
        ours.append(first)
        return ours
    ours = Unfinished(path, file, tuple(lines), torn=bool(rest))
    ours.cut(len(lines))
    return ours
