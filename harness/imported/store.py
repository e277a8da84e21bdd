"""Files of `vllm bench serve` as trials of a store."""

from pathlib import Path
from typing import NamedTuple

from harness.imported.record import BASELINE, Origin, record_of
from harness.imported.requests import requests
from harness.imported.result import parse
from harness.stored.trials import cell_folder, trial_name, write_trial

UNNAMED = "vllm"
FILE, DENSE = "vllm_bench.json", "vllm_bench_dense.json"


class Asked(NamedTuple):
    """Where to, and what was served; algo: None is what the file says."""

    root: Path
    experiment: str
    algo: str | None
    tier: str
    dtype: str


def keep(path: Path, dense: Path | None, asked: Asked) -> Path:
    """Write the trial of a file, with the file beside it; raises ValueError of one line."""
    content, base = _read(path), None if dense is None else _read(dense)
    algo = asked.algo or _served(path, content)
    if base is not None and algo == BASELINE:
        raise ValueError(f"{path}: --dense is for runs of an algorithm; name it by --algo")
    origin = Origin(experiment=asked.experiment, algo=algo, tier=asked.tier, dtype=asked.dtype)
    record = record_of(content, base, origin)
    folder = cell_folder(asked.root, record) / trial_name(record)
    if folder.exists():
        raise ValueError(f"{path}: it is in the store already: {folder}")
    beside = {FILE: content} if base is None else {FILE: content, DENSE: base}
    times = requests(parse(content), algo)
    if base is not None:
        times += requests(parse(base), BASELINE)
    try:
        return write_trial(record, asked.root, times, beside)
    except OSError as error:
        raise ValueError(f"--root {asked.root}: {error.strerror}") from None


def _read(path: Path) -> bytes:
    """A file that holds a result."""
    try:
        content = path.read_bytes()
        parse(content)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return content


def _served(path: Path, content: bytes) -> str:
    """What `--metadata algo=...` has said."""
    said = parse(content).others.get("algo", UNNAMED)
    if not isinstance(said, str) or not said:
        raise ValueError(f"{path}: algo: {said!r} is no name")
    return said
