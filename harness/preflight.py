"""What can be refused before a weight is read, with the reason and the choices that would work."""

from dataclasses import dataclass

import torch

from backends.transformers.loading import ModelInfo
from harness.settings import Settings
from harness.sizes import format_size
from harness.workload import Workload
from memory_tiers.base import KVGeometry
from sparse_algos.base import Algorithm


@dataclass(frozen=True)
class Plan:
    """Sizes that follow from settings, model and workload.

    sequences: requests that run at one time; max_tokens: of the longest; chunk_tokens: prompt
    tokens of one step; frames: by tier.
    """

    geometry: KVGeometry
    sequences: int
    max_tokens: int
    chunk_tokens: int
    frames: dict[str, int]


def preflight(
    settings: Settings,
    algorithm: Algorithm,
    model: ModelInfo,
    workload: Workload,
    device: torch.device,
) -> Plan:
    """Compare what is asked with what is there; raises ValueError of one line."""
    _check_context(model, workload)
    return plan_for(settings, algorithm, model, workload.most_tokens, device)


def plan_for(
    settings: Settings,
    algorithm: Algorithm,
    model: ModelInfo,
    max_tokens: int,
    device: torch.device,
) -> Plan:
    """Sizes for requests of at most `max_tokens`; raises ValueError when they do not fit."""
    _check_layers(settings, algorithm, model)
    geometry = KVGeometry(
        num_layers=model.num_layers,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        page_tokens=settings.partition.page_tokens,
        dtype=model.dtype,
        device=device,
    )
    sequences = 1 if settings.load.name == "single" else settings.backend.max_batch
    everything = sequences * geometry.pages_for(max_tokens)
    frames = frames_by_tier(settings, geometry, everything)
    whole = settings.backend.prefill == "layer_segmented"
    chunk_tokens = max_tokens if whole else settings.backend.chunk_tokens
    plan = Plan(geometry, sequences, max_tokens, chunk_tokens, frames)
    _check_fast_tier(settings, algorithm, plan)
    _check_last_tier(settings, plan)
    return plan


def _check_context(model: ModelInfo, workload: Workload) -> None:
    if workload.most_tokens > model.max_tokens:
        raise ValueError(
            f"task.length asks for requests of up to {workload.most_tokens} tokens, model "
            f"{model.name} takes {model.max_tokens}; lower task.length to {model.max_tokens}"
        )


def _check_layers(settings: Settings, algorithm: Algorithm, model: ModelInfo) -> None:
    served = set(range(algorithm.dense_layers, model.num_layers)) - model.windowed_layers
    if not served and not algorithm.is_dense:
        raise ValueError(
            f"algo.dense_layers={algorithm.dense_layers} leaves algo={settings.algo.name} no layer "
            f"to act on: model {model.name} has {model.num_layers} layers, "
            f"{len(model.windowed_layers)} of them windowed; lower it, or use algo=dense"
        )


def frames_by_tier(settings: Settings, geometry: KVGeometry, everything: int) -> dict[str, int]:
    """Frames of each tier, where all KV together takes `everything` pages."""
    frames = {}
    for name, arena in settings.tier.arenas.items():
        if arena.size == "auto":
            frames[name] = everything
        elif isinstance(arena.size, float):
            frames[name] = int(arena.size * everything)
        else:
            frames[name] = min(arena.size // geometry.page_bytes, everything)
    return frames


def _check_fast_tier(settings: Settings, algorithm: Algorithm, plan: Plan) -> None:
    fast = settings.tier.levels[0]
    needed, why = _needed(algorithm, plan)
    if plan.frames[fast] < needed:
        size = format_size(needed * plan.geometry.page_bytes)
        raise ValueError(
            f"tier.{fast}.size={_shown(settings, fast)} holds {plan.frames[fast]} pages, "
            f"one step of one layer needs {needed} ({why}); raise tier.{fast}.size to {size}, or "
            "lower algo.retrieve.budget_tokens, backend.chunk_tokens or backend.max_batch"
        )


def _needed(algorithm: Algorithm, plan: Plan) -> tuple[int, str]:
    """Pages that must be in the fast tier at one time, and what for."""
    geometry = plan.geometry
    heads, size = geometry.num_kv_heads, geometry.page_tokens
    chunk = min(plan.chunk_tokens, plan.max_tokens)
    chunk_pages = heads * min(-(-chunk // size) + 1, -(-plan.max_tokens // size))
    rows = plan.sequences * heads
    needs = [
        (chunk_pages, f"{heads} kv heads x a chunk of {chunk} tokens"),
        (rows, f"{rows} rows that append a token"),
    ]
    if algorithm.retrieve is not None:
        tokens = min(algorithm.retrieve.most_tokens(plan.max_tokens), plan.max_tokens)
        pages = -(-tokens // algorithm.retrieve.partition_size)
        pages = min(pages, -(-plan.max_tokens // size))
        needs.append((rows * pages, f"{rows} rows x {tokens} selected tokens"))
    return max(needs)


def _check_last_tier(settings: Settings, plan: Plan) -> None:
    last = settings.tier.levels[-1]
    needed = plan.geometry.pages_for(plan.max_tokens)
    if plan.frames[last] < needed:
        size = format_size(needed * plan.geometry.page_bytes)
        lower = " or use tier=hbm+cpu," if len(settings.tier.levels) == 1 else ""
        raise ValueError(
            f"tier.{last}.size={_shown(settings, last)} holds {plan.frames[last]} pages, "
            f"a request of {plan.max_tokens} tokens takes {needed}; raise it to {size},{lower} or "
            "lower task.length"
        )


def _shown(settings: Settings, level: str) -> str:
    size = settings.tier.arenas[level].size
    return format_size(size) if isinstance(size, int) else str(size)
