"""JSON and JSON lines of a user: what is wrong is told by file, line and reason, in one line."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises ValueError with the line of what is malformed."""
    return _parsed(_text(path), path, 1)


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each row of a JSON-lines file stands, and the row; empty lines are left out."""
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", _parsed(line, path, number)


def field_of(row: Any, key: str, kind: type, where: str) -> Any:
    """A field of a row; raises ValueError where it is absent or of another kind."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: is no JSON object")
    if key not in row:
        raise ValueError(f"{where}: field '{key}' is absent")
    if not isinstance(row[key], kind):
        found = type(row[key]).__name__
        raise ValueError(f"{where}: field '{key}' is of type {found}, not {kind.__name__}")
    return row[key]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: is no UTF-8 ({error.reason})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None


def _parsed(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise ValueError(f"{path}, line {line}: {error.msg} at column {error.colno}") from None
