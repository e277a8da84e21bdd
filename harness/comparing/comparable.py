"""Whether two runs measured the same thing on the same machine, before any number is read."""

from collections.abc import Iterator

from harness.record import RunRecord


def reasons_against_run(record: RunRecord) -> list[str]:
    """Why a run's numbers may not be used at all; none means that they may."""
    reasons = [f"{error.kind}: {error.message}" for error in record.errors]
    if record.run.status != "ok":
        return [f"the run ended as {record.run.status}", *reasons]
    return list(record.run.verdict.reasons)


def reasons_against_pair(base: RunRecord, candidate: RunRecord) -> list[str]:
    """Why accuracy and counters of two runs do not compare; what is missing does not compare."""
    return [*_cells(base, candidate), *_workloads(base, candidate), *_models(base, candidate)]


def reasons_against_times(base: RunRecord, candidate: RunRecord) -> list[str]:
    """Why their latencies do not compare, beside what is against the pair itself."""
    return [
        f"{what} differs: {ours!r} and {theirs!r}"
        for what, ours, theirs in _conditions(base, candidate)
        if ours != theirs
    ]


def _cells(base: RunRecord, candidate: RunRecord) -> Iterator[str]:
    ours, theirs = base.cell, candidate.cell
    if ours is None or theirs is None:
        yield "a record without a cell: it was written before cells had a hash"
        return
    if ours.benchmark != theirs.benchmark:
        yield (
            "another benchmark: the code or data that makes requests and metrics differs "
            f"({ours.benchmark[:12]} and {theirs.benchmark[:12]})"
        )
    elif ours.hash != theirs.hash:
        keys = ", ".join(_differing(base.config.resolved, candidate.config.resolved))
        yield f"another cell ({ours.hash[:12]} and {theirs.hash[:12]}): {keys or 'other weights'}"


def _workloads(base: RunRecord, candidate: RunRecord) -> Iterator[str]:
    if base.workload.sample_ids_sha256 != candidate.workload.sample_ids_sha256:
        yield "other requests: the hash of their ids differs"
    elif base.workload.prompt_tokens != candidate.workload.prompt_tokens:
        yield "other requests: their prompts have other lengths"


def _models(base: RunRecord, candidate: RunRecord) -> Iterator[str]:
    ours, theirs = base.system.model, candidate.system.model
    if ours.sha256 is None or theirs.sha256 is None:
        yield "a model without a hash of its weights"
    elif ours != theirs:
        yield f"another model: {ours.id} {ours.dtype} and {theirs.id} {theirs.dtype}"


def _conditions(base: RunRecord, candidate: RunRecord) -> Iterator[tuple[str, object, object]]:
    """Of the machine and of how it was used."""
    ours, theirs = base.env, candidate.env
    yield "the hardware", ours.fingerprint[:12], theirs.fingerprint[:12]
    for name in ("torch_threads", "affinity", "omp_wait_policy", "interleaving", "warmup", "clock"):
        yield name, getattr(base.measurement, name), getattr(candidate.measurement, name)
    yield "an environment variable", ours.variables, theirs.variables


def _differing(ours: object, theirs: object, key: str = "") -> Iterator[str]:
    """The keys whose values differ, dotted, but for those that no cell's hash holds."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        if ours != theirs:
            yield f"{key}={ours} and {theirs}"
        return
    for name in sorted(ours.keys() | theirs.keys()):
        if key or name not in ("results", "logger", "sweep", "resume", "accuracy"):
            inner = f"{key}.{name}" if key else name
            yield from _differing(ours.get(name), theirs.get(name), inner)
