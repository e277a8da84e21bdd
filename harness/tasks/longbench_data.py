"""LongBench's samples: JSON lines of the benchmark's own schema, or rows of the hub's mirror."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from harness.tasks.longbench_prompts import Template
from harness.tasks.longbench_scores import PARAGRAPH
from harness.tasks.longbench_table import EVEN, SUBSETS, subset_of

ARCHIVE = "THUDM/LongBench"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row; length: in words, of Chinese in characters, None where it is not told."""

    context: str
    asked: str
    answers: tuple[str, ...]
    all_classes: tuple[str, ...]
    length: int | None


def local_rows(folder: Path, names: Sequence[str]) -> Mapping[str, Path]:
    """The file of each task; ValueError that names the absent ones and what fetches them."""
    found = {name: _file(folder, name) for name in names}
    if absent := [name for name, path in found.items() if path is None]:
        raise ValueError(
            f"task.path={folder} has no {', '.join(f'{name}.jsonl' for name in absent)}; put them "
            f"there, or fetch all: hf download {ARCHIVE} data.zip --repo-type dataset --local-dir "
            f"{folder} && python -m zipfile -e {folder}/data.zip {folder}"
        )
    return {name: path for name, path in found.items() if path is not None}


def read_lines(path: Path, task: str, template: Template, most: int | None) -> list[Sample]:
    """The first samples of a file; ValueError with file, line and reason for what is off."""
    try:
        with path.open(encoding="utf-8") as lines:
            filled = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
            rows = ((f"{path}:{number}", _parsed(path, number, line)) for number, line in filled)
            samples = list(islice(_samples(rows, task, template), most))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not samples:
        raise ValueError(f"{path}: holds no samples")
    return samples


def from_rows(
    rows: Iterable[Mapping[str, Any]], origin: str, task: str, template: Template, most: int | None
) -> list[Sample]:
    """The first samples of a table; ValueError with its name, the row and the reason."""
    placed = ((f"{origin}: row {number}", row) for number, row in enumerate(rows))
    return list(islice(_samples(placed, task, template), most))


def _file(folder: Path, name: str) -> Path | None:
    """In the folder, or where the benchmark's archive puts it."""
    places = (folder / f"{name}.jsonl", folder / "data" / f"{name}.jsonl")
    return next((path for path in places if path.is_file()), None)


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line.rstrip("\n"))
    except json.JSONDecodeError as error:
        reason = f"not JSON, {error.msg} at column {error.colno}"
        raise ValueError(f"{path}:{number}: {reason}") from None


def _samples(rows: Iterable[tuple[str, Any]], task: str, template: Template) -> Iterator[Sample]:
    for place, row in rows:
        try:
            yield _sample(row, task, template)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None


def _sample(row: Any, task: str, template: Template) -> Sample:
    if not isinstance(row, Mapping):
        raise ValueError("must be an object")
    context, asked = _text(row, "context"), _text(row, "input" if "input" in row else "question")
    if "answer_prefix" in row:
        context, asked = unformatted(context, asked + _text(row, "answer_prefix"), template)
    answers = _texts(row, "answers")
    if not answers:
        raise ValueError("answers is empty")
    metric, length = SUBSETS[subset_of(task)].metric, row.get("length")
    all_classes = _texts(row, "all_classes") if row.get("all_classes") is not None else ()
    if metric == "classification" and not all_classes:
        raise ValueError("all_classes is empty")
    if (pattern := PARAGRAPH.get(metric)) and not all(re.search(pattern, one) for one in answers):
        raise ValueError(f"answers={list(answers)} name no paragraph")
    if isinstance(length, bool) or not isinstance(length, int | None):
        raise ValueError(f"length={length!r} must be an integer")
    if task.endswith(EVEN) and length is None:
        raise ValueError("length is missing, which LongBench-E groups by")
    return Sample(
        context=context, asked=asked, answers=answers, all_classes=all_classes, length=length
    )


def unformatted(context: str, rest: str, template: Template) -> tuple[str, str]:
    """Context and input of a row that has the prompt around them already, as on the mirror.

    It breaks the prompt at another place, somewhere between context and input. Raises ValueError
    unless the template around what is returned gives the same prompt, to the byte.
    """
    prompt, body = context + rest, context.removeprefix(template.head)
    end = template.end or ""
    for size in range(len(template.middle), -1, -1):
        bare = body.removesuffix(template.middle[:size])
        asked = rest.removeprefix(template.middle[size:])
        asked = "" if template.end is None else asked[: len(asked) - len(end)]
        if template.prompt(bare, asked) == prompt:
            return bare, asked
    raise ValueError("context, question and answer_prefix are not the prompt of this task")


def _text(row: Mapping[str, Any], key: str) -> str:
    if not isinstance(row.get(key), str):
        raise ValueError(f"{key}={row.get(key)!r} must be a string")
    return str(row[key])


def _texts(row: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value: Any = row.get(key)
    # Tables of the mirror hold arrays.
    listed = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    items = tuple(value) if listed else (value,)
    if not listed or not all(isinstance(one, str) for one in items):
        raise ValueError(f"{key}={value!r} must be a list of strings")
    return items
