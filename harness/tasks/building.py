"""Builds prompts here, or in processes of their own where there are many.

python -m harness.tasks.building      one such process: a job in JSON on stdin, JSON lines out
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as FastTokenizer

from harness.sources import ROOT
from harness.tasks.base import TaskRequest, Tokenizer
from harness.tasks.drafts import Generator
from harness.tasks.token_counts import PROBES, TokenCounts

if TYPE_CHECKING:
    from harness.tasks.ruler13 import Ruler13

# A process takes about a second to start; a core builds some millions of tokens in it.
_TOKENS_WORTH_A_PROCESS = 4_000_000
# Samples that share one check of their token counts; the first of them is checked.
GROUP = 20
_PIPES: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)


class Plain:
    """A fast tokenizer by its JSON form, for a process that loads no model library."""

    def __init__(self, content: str) -> None:
        self.backend_tokenizer = FastTokenizer.from_str(content)

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return list(self.backend_tokenizer.encode(text).ids)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """See Tokenizer."""
        return self.backend_tokenizer.decode(
            list(token_ids), skip_special_tokens=skip_special_tokens
        )


@dataclass(frozen=True)
class Job:
    """What one process builds: groups of samples, by the task and the first sample of each."""

    task: "Ruler13"
    tokenizer: str
    groups: Sequence[tuple[str, int]]

    def to_json(self) -> str:
        """What `from_json` reads."""
        kind = f"{type(self.task).__module__}.{type(self.task).__name__}"
        return json.dumps([kind, asdict(self.task), self.tokenizer, list(self.groups)])

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """A job for a task of whatever class it names."""
        kind, settings, tokenizer, groups = json.loads(text)
        module, _, name = kind.rpartition(".")
        task = getattr(import_module(module), name)(**_with_tuples(settings))
        return cls(task, tokenizer, [(name, start) for name, start in groups])


def build_groups(
    task: "Ruler13",
    generators: Mapping[str, Generator],
    tokenizer: Tokenizer,
    advance: Callable[[str], None],
) -> dict[str, list[TaskRequest]]:
    """All samples of each generator; `advance` hears the task of each."""
    groups = [(name, at) for name in generators for at in range(0, task.num_samples, GROUP)]
    num_workers = _num_workers(task, len(generators), len(groups))
    plain = _plain(tokenizer) if num_workers > 1 else None
    if plain is None:
        made = _built_here(task, generators, tokenizer, groups, advance)
    else:
        jobs = [Job(task, plain, groups[number::num_workers]) for number in range(num_workers)]
        with ThreadPoolExecutor(num_workers) as pool:
            parts = list(pool.map(lambda job: list(_built_elsewhere(job, advance)), jobs))
        made = {key: requests for part in parts for key, requests in part}
    return {
        name: [request for of, at in groups if of == name for request in made[of, at]]
        for name in generators
    }


def as_request(fields: dict[str, Any]) -> TaskRequest:
    """A request from its JSON form."""
    return TaskRequest(**_with_tuples(fields))


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a frozen dataclass, which JSON gives lists."""
    return {key: tuple(one) if isinstance(one, list) else one for key, one in fields.items()}


def _built_here(
    task: "Ruler13",
    generators: Mapping[str, Generator],
    tokenizer: Tokenizer,
    groups: Sequence[tuple[str, int]],
    advance: Callable[[str], None],
) -> dict[tuple[str, int], list[TaskRequest]]:
    counts = TokenCounts(tokenizer)
    made = {}
    for name, start in groups:
        made[name, start] = task.group(name, generators[name], start, counts)
        for _ in made[name, start]:
            advance(name)
    return made


def _built_elsewhere(
    job: Job, advance: Callable[[str], None]
) -> Iterator[tuple[tuple[str, int], list[TaskRequest]]]:
    command = [sys.executable, "-m", "harness.tasks.building"]
    with subprocess.Popen(command, cwd=ROOT, **_PIPES) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(job.to_json().encode())
        process.stdin.close()
        for group, line in zip(job.groups, process.stdout, strict=False):
            requests = [as_request(fields) for fields in json.loads(line)]
            for _ in requests:
                advance(group[0])
            yield group, requests
        complaint = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise ValueError(complaint.splitlines()[-1] if complaint else "a builder was stopped")


def _num_workers(task: "Ruler13", num_tasks: int, num_groups: int) -> int:
    if task.workers is not None:
        return min(task.workers, num_groups)
    num_tokens = num_tasks * task.num_samples * task.length
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, num_groups, num_tokens // _TOKENS_WORTH_A_PROCESS))


def _plain(tokenizer: Tokenizer) -> str | None:
    """The tokenizer's JSON form, or None where that is not all there is to it."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    content = str(backend.to_str())
    plain = Plain(content)
    same = all(plain.encode(text) == list(tokenizer.encode(text)) for text in PROBES)
    return content if same else None


def main() -> int:
    """One process of several; returns the exit code."""
    job = Job.from_json(sys.stdin.read())
    counts, generators = TokenCounts(Plain(job.tokenizer)), dict[str, Generator]()
    try:
        for name, start in job.groups:
            if name not in generators:
                generators[name] = job.task.generator(name)
            requests = job.task.group(name, generators[name], start, counts)
            print(json.dumps([asdict(request) for request in requests]), flush=True)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
