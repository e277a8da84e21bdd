"""A trace for studies: the algorithm alone over the requests of the task, without a baseline."""

import hashlib
import json
from pathlib import Path

from rich.console import Console

from harness.cell import prepare
from harness.prepared import Prepared
from harness.progress import progress
from harness.settings import Settings
from harness.system import assemble, load
from harness.tracing import finished_trace
from memory_tiers.trace import Trace

# What a selection depends on; tiers, caches and hardware do not change it.
GROUPS = {"algo", "partition", "backend", "model", "task", "load", "protocol"}


def cached_trace(settings: Settings, folder: Path, console: Console) -> Trace:
    """The trace of these settings, recorded unless `folder` holds it."""
    path = folder / f"{settings.algo.name}-{_key(settings)}.safetensors"
    if not path.exists():
        record_trace(settings, console).save(path)
    console.print(f"trace: {path}", soft_wrap=True, highlight=False, markup=False)
    return Trace.load(path)


def record_trace(settings: Settings, console: Console) -> Trace:
    """Serve every request through the algorithm; raises ValueError as a run would."""
    traced = settings.trace.model_copy(update={"record": True})
    prepared = prepare(settings.model_copy(update={"trace": traced}))
    settings = prepared.settings
    model = load(settings, prepared.info, prepared.device)
    _serve(prepared, model, console)
    assert prepared.recorder is not None
    return finished_trace(
        prepared.recorder,
        settings,
        prepared.algorithm,
        prepared.plan,
        prepared.info,
        sum(one.numel() for one in model.parameters()),
    )


def _serve(prepared: Prepared, model: object, console: Console) -> None:
    settings, items = prepared.settings, prepared.workload.items
    engine = assemble(
        settings, prepared.algorithm, prepared.plan, prepared.info, model, prepared.kernel
    )
    engine.attention.recorder = prepared.recorder
    engine.submit([item.request for item in items])
    total = sum(item.request.max_new_tokens for item in items)
    with progress(total=total, unit="tokens", console=console) as advance:
        while engine.busy:
            for event in engine.step():
                advance(event.uid)


def _key(settings: Settings) -> str:
    relevant = settings.model_dump(mode="json", by_alias=True, include=GROUPS)
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]
