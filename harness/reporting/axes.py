"""What a run was, in the words of its record: its axes, what it compares with, where it ran."""

import shlex
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from harness.record import RunRecord
from harness.stored.identity import SHORT

# The only package whose classes a report looks up for a record.
ALGORITHMS = "sparse_algos."
# Parts of a group that are digests, at its end.
NUM_DIGESTS = 3


def axes_of(record: RunRecord, experiment: str) -> dict[str, Any]:
    """What a reader chooses cells by."""
    system, workload, budget = record.system, record.workload, record.system.requested_budget
    return {
        "experiment": experiment,
        "algo": system.algo,
        "budget": budget.tokens,
        "fraction": budget.fraction,
        "tier": system.tier,
        "cache": system.cache,
        "partition": system.partition,
        "backend": " ".join(filter(None, (system.backend.name, system.backend.version))),
        "kernel": system.backend.kernel,
        "model": system.model.id,
        "task": workload.task,
        "length": length_of(record),
        "requests": workload.n_done,
        "planned": workload.n_planned,
        "seed": workload.seed,
        "sparsity": system.requested_sparsity,
    }


def length_of(record: RunRecord) -> int | None:
    """The length that the task was asked for, else the median prompt."""
    task, prompts = record.config.resolved.get("task"), record.workload.prompt_tokens
    asked = task.get("length") if isinstance(task, dict) else None
    if isinstance(asked, int):
        return asked
    return None if prompts is None else round(prompts.median)


def group_of(record: RunRecord) -> tuple[str, ...]:
    """The same requests to the same model on the same machine: what may be compared.

    The first parts are for people, the last three are digests.
    """
    workload, system, length = record.workload, record.system, length_of(record)
    return (
        workload.task if length is None else f"{workload.task}, {length:,} tokens",
        f"{system.model.id} {system.model.dtype}",
        f"{workload.n_planned} requests",
        str(workload.load.get("name", "unnamed load")),
        workload.protocol,
        hardware_of(record),
        workload.sample_ids_sha256,
        record.env.fingerprint,
        system.model.sha256 or "",
    )


def hardware_of(record: RunRecord) -> str:
    """The accelerators, or else the processor and its cores."""
    env = record.env
    if env.gpus:
        return f"{len(env.gpus)} x {env.gpus[0].name}"
    return f"{env.cpu.model}, {env.cpu.cores_usable or '?'} cores"


def env_of(record: RunRecord) -> dict[str, Any]:
    """Where it was measured, for the eyes."""
    env, measured = record.env, record.measurement
    packages = {name: one for name, one in env.packages.items() if one is not None}
    git = "unknown" if env.git is None else env.git.sha[:12] + (" + changes" * env.git.dirty)
    return {
        "commit": git,
        "hardware": hardware_of(record),
        "memory_bytes": env.ram_bytes,
        "python": env.python,
        "kernel": env.kernel,
        "cuda": env.cuda,
        "packages": ", ".join(f"{name} {one}" for name, one in packages.items()),
        "threads": env.torch_threads,
        "interleaving": measured.interleaving,
        "warmup": measured.warmup,
        "clock": measured.clock,
        "protocol": record.workload.protocol,
        "code": record.cell.code[:SHORT] if record.cell else None,
        "benchmark": record.cell.benchmark[:SHORT] if record.cell else None,
    }


def is_bound(config: Mapping[str, Any]) -> bool:
    """Whether the retriever of a config says that it is only there to be compared with."""
    algo = config.get("algo")
    retrieve = algo.get("retrieve") if isinstance(algo, dict) else None
    target = retrieve.get("_target_") if isinstance(retrieve, dict) else None
    return isinstance(target, str) and _declares_bound(target)


@cache
def _declares_bound(target: str) -> bool:
    module, _, name = target.rpartition(".")
    if not module.startswith(ALGORITHMS):
        return False
    try:
        return bool(getattr(getattr(import_module(module), name), "bound", False))
    except (ImportError, AttributeError):
        return False


def command_of(record: RunRecord) -> str:
    """What measures this cell again, for a shell."""
    return shlex.join(("python", "harness/run.py", *record.config.overrides))
