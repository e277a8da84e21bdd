"""Data of a user's own tasks: what is absent or malformed is told by file, line and reason."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.tasks.json_rows import read_rows

# What `datasets` looks up elsewhere, or matches by itself.
NOT_A_FILE = ("://", "*", "?", "[")


def check_local_files(name: str, config: Mapping[str, Any]) -> None:
    """Raise ValueError of one line for a JSON file of a task that is not there, or not JSON."""
    if config.get("dataset_path") != "json":
        return
    files = (config.get("dataset_kwargs") or {}).get("data_files") or ()
    for path in map(Path, _texts(files)):
        if any(mark in str(path) for mark in NOT_A_FILE):
            continue
        if not path.is_file():
            raise ValueError(
                f"task.names: {name} needs its data, there is no file {path}; put it there, or "
                "name another under dataset_kwargs.data_files of the task"
            )
        if path.suffix == ".jsonl":
            for where, row in read_rows(path):
                _object(row, where)


def _object(row: Any, where: str) -> None:
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: is no JSON object")


def _texts(value: Any) -> Iterator[str]:
    """The texts in a text, a list or a mapping of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, Iterable):
        for one in value:
            yield from _texts(one)
