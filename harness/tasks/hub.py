"""Public data sets by `datasets`, and a command that keeps one as JSON lines.

python -m harness.tasks.hub essays|squad|hotpotqa FILE.jsonl
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

COMMAND = "python -m harness.tasks.hub"
# What RULER takes, where the hub has it: path, configuration, split. The essays' own pages may not
# be redistributed; this copy is the one that lm-eval reads.
SETS: Mapping[str, tuple[str, str | None, str]] = {
    "essays": ("baber/paul_graham_essays", None, "train"),
    "squad": ("rajpurkar/squad_v2", None, "validation"),
    "hotpotqa": ("hotpotqa/hotpot_qa", "distractor", "validation"),
}


def rows_of(name: str) -> Iterator[tuple[str, Any]]:
    """Where each row of a data set stands, and the row; raises ValueError where it is absent."""
    path, configuration, split = SETS[name]
    try:
        from datasets import load_dataset

        rows = load_dataset(path, configuration, split=split)
    except ImportError:
        raise ValueError("package datasets is absent (pip install 'kvloom[eval]')") from None
    # No network, no such set, no access: each of its own class.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} could not be loaded ({reason[:160]})") from None
    return ((f"{path}, row {number}", row) for number, row in enumerate(rows))


def main(arguments: list[str], rows: Callable[[str], Iterator[tuple[str, Any]]] = rows_of) -> int:
    """Keep a set; returns the exit code."""
    if len(arguments) != 2 or arguments[0] not in SETS:
        print(f"{COMMAND} {'|'.join(SETS)} FILE.jsonl", file=sys.stderr)
        return 2
    try:
        lines = [json.dumps(row) + "\n" for _, row in rows(arguments[0])]
    except ValueError as error:
        print(f"kvloom: {error}", file=sys.stderr)
        return 2
    Path(arguments[1]).parent.mkdir(parents=True, exist_ok=True)
    Path(arguments[1]).write_text("".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
