"""Prompts that are built once and kept, by what they depend on, under the folder of a task."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.progress import progress
from harness.sources import ROOT, tasks_sha256
from harness.tasks import ruler_data
from harness.tasks.base import TaskRequest, Tokenizer
from harness.tasks.building import as_request, build_groups

if TYPE_CHECKING:
    from harness.tasks.ruler13 import Ruler13

PROBE = "The 2nd needle, 7481923: a-b_c\n\n\tVAR XQ = 12 \u00e9"
# Below this many samples nobody waits long enough to want to know.
_SHOWN_FROM = 100


def built(task: "Ruler13", tokenizer: Tokenizer) -> tuple[TaskRequest, ...]:
    """All requests of a task, those that are kept from their files."""
    identity = tokenizer_sha256(tokenizer) if task.cache else None
    paths = {one: path_of(task, one, identity) for one in task.tasks} if identity else {}
    kept = {one: read(path, task.num_samples) for one, path in paths.items()}
    missing = [one for one in task.tasks if not kept.get(one)]
    # All of them before the first is built: what is absent is told at once.
    generators = {one: task.generator(one) for one in missing}
    total = len(missing) * task.num_samples
    console = Console(stderr=True, quiet=total < _SHOWN_FROM)
    with progress(total=max(1, total), unit="prompts", console=console) as advance:
        for one, requests in build_groups(task, generators, tokenizer, advance).items():
            kept[one] = requests
            if one in paths:
                write(paths[one], requests)
    return tuple(request for one in task.tasks for request in kept[one] or ())


def tokenizer_sha256(tokenizer: Tokenizer) -> str | None:
    """What tells one tokenizer from another, or None where it cannot be told."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    to_str: Callable[[], str] | None = getattr(backend, "to_str", None)
    if to_str is None:
        return None
    # Beside what it says of itself, what it does: a wrapper may add tokens of its own.
    does = json.dumps(list(tokenizer.encode(PROBE)))
    return hashlib.sha256((to_str() + does).encode()).hexdigest()


def read(path: Path, num_samples: int) -> list[TaskRequest] | None:
    """The requests of a file, or None where it is absent or not whole."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        requests = [as_request(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError):
        return None
    return requests if len(requests) == num_samples else None


def write(path: Path, requests: Sequence[TaskRequest]) -> None:
    """Keep requests; a reader sees all of them or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    lines = (json.dumps(asdict(request)) + "\n" for request in requests)
    partial.write_text("".join(lines), encoding="utf-8")
    partial.replace(path)


def path_of(task: "Ruler13", name: str, tokenizer: str) -> Path:
    """Where the prompts of one task are kept; tokenizer: its identity."""
    sources = task.sources(name)
    content = {
        "tokenizer": tokenizer,
        "task": name,
        "length": task.length,
        "max_new_tokens": task.max_new_tokens,
        "num_samples": task.num_samples,
        "seed": task.seed,
        "sources": {key: ruler_data.digest_of(source) for key, source in sources.items()},
        "sentences": task.sentences if "essays" in sources else None,
        "code": tasks_sha256(),
        "words": version("wonderwords"),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert task.cache is not None
    return ROOT / task.cache / f"ruler-{name}-{task.length}-{digest[:32]}.jsonl"
