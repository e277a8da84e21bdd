"""JSON lines that several processes add to: whole lines under a lock, what is damaged is named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from harness.schema import Part
from harness.stored.files import replace_durably
from harness.stored.locks import file_lock

AnyPart = TypeVar("AnyPart", bound=Part)
WAIT_S = 60


@dataclass(frozen=True)
class Read(Generic[AnyPart]):
    """The rows of a file in order, and what is wrong with its other lines."""

    rows: tuple[AnyPart, ...]
    problems: tuple[str, ...] = ()


def read(path: Path, kind: type[AnyPart]) -> Read[AnyPart]:
    """All rows; none where there is no file."""
    rows, problems = [], []
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(kind.model_validate_json(line))
        except ValidationError as error:
            problems.append(f"{path.name}:{number} is damaged: {error.errors()[0]['msg']}")
    return Read(tuple(rows), tuple(problems))


def append(path: Path, row: Part) -> None:
    """Add a row at the end, durably; the file has it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path, timeout_s=WAIT_S):
        before = path.read_bytes() if path.exists() else b""
        # A line cut off by whatever wrote it must not swallow the next.
        joint = b"" if not before or before.endswith(b"\n") else b"\n"
        replace_durably(path, before + joint + row.model_dump_json().encode() + b"\n")
