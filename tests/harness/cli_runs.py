"""Runs of the command line inside the test process, which saves the imports each time."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.stored.trials import SAMPLES

SMALL = ("task.num_samples=1", "task.length=512", "load.warmup_tokens=64")


def run(
    overrides: tuple[str, ...], results: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and the records that the run wrote with their samples, oldest first."""
    argv = ["harness/run.py", *overrides, f"results={results}"]
    monkeypatch.setattr("sys.argv", argv)
    code = main()
    paths = sorted(results.glob("*/*/*/record.json"), key=lambda path: path.stat().st_mtime_ns)
    return code, [content(path) for path in paths]


def content(path: Path) -> dict[str, Any]:
    """A record of the store, and its samples."""
    lines = path.with_name(SAMPLES).read_text().splitlines()
    return json.loads(path.read_text()) | {"samples": [json.loads(line) for line in lines]}
