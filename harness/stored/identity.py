"""What a cell is: everything that decides what is measured, as one hash."""

import hashlib
import json
from typing import Any

from harness.record import Cell
from harness.settings import Settings
from harness.sources import measured_sha256, measuring_sha256

# Settings that change nothing that is measured.
EXCLUDED = ("results", "logger", "sweep", "resume", "accuracy", "tier.disk.path")
# Of the hash, in names of folders.
SHORT = 16


def cell_hash(settings: Settings, model_sha256: str | None) -> str:
    """SHA-256 of the settings that change what is measured, of the weights and of the benchmark.

    The code under test is not in it: a cell keeps its hash over commits, so that they compare.
    """
    config = settings.model_dump(mode="json", by_alias=True)
    for key in EXCLUDED:
        _drop(config, key.split("."))
    parts = {"config": config, "model": model_sha256, "benchmark": measuring_sha256()}
    return hashlib.sha256(canonical(parts)).hexdigest()


def _drop(config: dict[str, Any], path: list[str]) -> None:
    """Take out what a path of keys leads to, where it is there."""
    *folders, last = path
    for one in folders:
        config = config.get(one, {})
    config.pop(last, None)


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no blanks, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def cell_of(settings: Settings, model_sha256: str | None, *, experiment: str) -> Cell:
    """The cell that settings describe, and their place in a sweep."""
    return Cell(
        experiment=experiment,
        hash=cell_hash(settings, model_sha256),
        excluded=EXCLUDED,
        benchmark=measuring_sha256(),
        code=measured_sha256(),
        round=settings.sweep.round,
        order=settings.sweep.order,
        attempt=settings.sweep.attempt,
    )
