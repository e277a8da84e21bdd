"""What a record says of the system that ran, and what a reader must know about it."""

from collections.abc import Sequence
from importlib.metadata import version

import torch

from backends.transformers.loading import ModelInfo
from harness.asked import model_sha256, requested_budget
from harness.record import BackendInfo, System
from harness.record import ModelInfo as ModelFacts
from harness.settings import LocalModel, Settings


def system_facts(
    settings: Settings,
    info: ModelInfo,
    kernel: str,
    num_parameters: int | None,
    task_notes: Sequence[str] = (),
) -> System:
    """The composed system, read back where it can be; no parameters if the model did not load."""
    return System(
        algo=settings.algo.name,
        tier=settings.tier.name,
        cache=settings.cache.name,
        partition=settings.partition.name,
        backend=BackendInfo(
            name=settings.backend.name, version=version(settings.backend.name), kernel=kernel
        ),
        model=ModelFacts(
            id=info.name,
            dtype=str(info.dtype).removeprefix("torch."),
            parameters=num_parameters,
            sha256=model_sha256(settings),
        ),
        requested_budget=requested_budget(settings),
        notes=(*_notes(settings, info), *task_notes),
    )


def _notes(settings: Settings, info: ModelInfo) -> list[str]:
    notes = []
    if "hbm" in settings.tier.levels and not torch.cuda.is_available():
        notes.append("no accelerator: the hbm tier is an arena of host memory, its copies are real")
    if (pattern := settings.algo.prefill) is not None:
        knobs = ", ".join(f"{name} {value}" for name, value in pattern.arguments.items())
        notes.append(f"prompts are computed by {pattern.target.rpartition('.')[2]}: {knobs}")
    if settings.trace.record:
        notes.append("selections were recorded for a trace: the speeds include that")
    if info.windowed_layers:
        layers = sorted(info.windowed_layers)
        notes.append(f"layers with a sliding window of {info.window} tokens are dense: {layers}")
    if settings.algo.dense_layers:
        notes.append(f"the first {settings.algo.dense_layers} layers are dense")
    if not isinstance(settings.model, LocalModel):
        notes.append("random weights: answers mean nothing, and selection is not that of a model")
    return notes
