"""From a run to the trace of what its algorithm selected."""

from pathlib import Path

from backends.transformers.loading import ModelInfo
from harness.preflight import Plan
from harness.settings import Settings
from memory_tiers.base import options
from memory_tiers.trace import Trace, TraceHeader
from memory_tiers.trace_recorder import TraceRecorder
from sparse_algos.base import Algorithm

NAME = "trace.safetensors"
RECORDED = ("token", "block")


def recorder_for(settings: Settings, algorithm: Algorithm) -> TraceRecorder | None:
    """A recorder where one is asked for; raises ValueError where there is nothing to record."""
    if not settings.trace.record:
        return None
    if settings.protocol.num_questions > 1:
        raise ValueError(
            f"protocol.num_questions={settings.protocol.num_questions}: trace=on records contexts "
            "that are asked once; use 1, or trace=off"
        )
    if algorithm.retrieve is None or algorithm.evict is not None:
        raise ValueError(
            f"trace=on records what a retriever selects while nothing is dropped, "
            f"algo={algorithm.name} is none; use algo=quest, or algo/evict=none, or trace=off"
        )
    if algorithm.retrieve.kind not in RECORDED:
        raise ValueError(
            f"trace=on records {options(RECORDED)}s, algo={algorithm.name} selects "
            f"{algorithm.retrieve.kind}s, whose places a trace does not hold; use trace=off"
        )
    return TraceRecorder()


def finished_trace(
    recorder: TraceRecorder,
    settings: Settings,
    algorithm: Algorithm,
    plan: Plan,
    info: ModelInfo,
    parameters: int,
) -> Trace:
    """What was recorded, with all that is needed to read it; parameters: of the model."""
    assert algorithm.retrieve is not None
    geometry = plan.geometry
    windows = {str(layer): info.window for layer in sorted(info.windowed_layers)}
    header = TraceHeader(
        num_layers=geometry.num_layers,
        num_kv_heads=geometry.num_kv_heads,
        head_dim=geometry.head_dim,
        page_tokens=geometry.page_tokens,
        dtype=str(geometry.dtype).removeprefix("torch."),
        partition_kind=algorithm.retrieve.kind,
        partition_size=algorithm.retrieve.partition_size,
        sequences=plan.sequences,
        max_tokens=plan.max_tokens,
        measured_from=recorder.measured_from,
        windows={layer: window for layer, window in windows.items() if window is not None},
        algorithm=algorithm.name,
        model=info.name,
        parameters=parameters,
        requests=tuple(recorder.requests),
        config=settings.model_dump(mode="json", by_alias=True, exclude={"results", "trace"}),
    )
    return Trace(header, recorder.columns())


def trace_path(settings: Settings, record_path: Path) -> Path:
    """Where the trace of a run goes: where it was wished, or beside the record."""
    wished = settings.trace.path
    return record_path.parent / NAME if wished is None else Path(wished)
