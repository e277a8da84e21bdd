"""What can be refused before a weight is read, with the reason and the choices that would work."""

from dataclasses import dataclass

import torch

from backends.eviction import peak_pages
from backends.transformers.loading import ModelInfo
from harness.build import build_mapper, find
from harness.settings import Settings
from harness.sizes import format_size
from harness.workload import Workload
from memory_tiers.base import KVGeometry
from sparse_algos.base import Algorithm
from sparse_algos.evictor import Evictor
from sparse_algos.retriever import Retriever


@dataclass(frozen=True)
class Plan:
    """Sizes that follow from settings, model and workload.

    sequences: requests that run at one time; max_tokens: of the longest; chunk_tokens: prompt
    tokens of one step; last_chunk: of the last one of a context, at least; row_pages: that one of
    its rows fills at most; own_pages: of a row, behind those of its tokens; request_pages: that the
    longest request takes at most; frames: by tier.
    """

    geometry: KVGeometry
    sequences: int
    max_tokens: int
    chunk_tokens: int
    last_chunk: int
    row_pages: int
    own_pages: int
    request_pages: int
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
    _check_questions(settings, algorithm)
    longest, rest = workload.most_tokens, workload.longest_rest
    plan = plan_for(settings, algorithm, model, longest, device, rest_tokens=rest)
    _check_tiers(settings, plan, num_arms=1 if algorithm.is_dense else 2)
    if algorithm.evict is not None:
        _check_baseline(settings, plan)
    return plan


def _check_tiers(settings: Settings, plan: Plan, *, num_arms: int) -> None:
    geometry, levels = plan.geometry, settings.tier.levels
    if levels[0] == "cpu" and geometry.device.type != "cpu":
        raise ValueError(
            f"tier={settings.tier.name} lets attention read host memory, the model runs on "
            f"{geometry.device.type}; use backend.device=cpu, or tier=hbm+cpu"
        )
    for name in levels:
        arena = settings.tier.arenas[name]
        num_bytes = num_arms * plan.frames[name] * geometry.page_bytes
        find(arena, f"tier.{name}").check(name, num_bytes, geometry.device, **arena.arguments)


def most_sequences(settings: Settings) -> int:
    """Requests that an engine runs at one time."""
    return 1 if settings.load.name == "single" else settings.backend.max_batch


def plan_for(
    settings: Settings,
    algorithm: Algorithm,
    model: ModelInfo,
    max_tokens: int,
    device: torch.device,
    rest_tokens: int | None = None,
) -> Plan:
    """Sizes for requests of at most `max_tokens`; raises ValueError when they do not fit.

    rest_tokens: of these, those after the context at most; None when that is not known.
    """
    _check_roles(settings, algorithm)
    _check_layers(settings, algorithm, model)
    geometry = KVGeometry(
        num_layers=model.num_layers,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        page_tokens=settings.partition.page_tokens,
        dtype=model.dtype,
        device=device,
    )
    sequences = most_sequences(settings)
    row_pages, own_pages = -(-max_tokens // geometry.page_tokens), 0
    mapper = build_mapper(settings, algorithm)
    if algorithm.retrieve is not None:
        partitions = algorithm.retrieve.most_partitions(max_tokens)
        row_pages += mapper.waste_pages(partitions)
        own_pages = mapper.own_pages(max_tokens, partitions, geometry.page_tokens)
    request_pages = geometry.num_layers * geometry.num_kv_heads * row_pages
    frames = frames_by_tier(settings, geometry, sequences * request_pages)
    whole = settings.backend.prefill == "layer_segmented"
    chunk_tokens, last_chunk = max_tokens if whole else settings.backend.chunk_tokens, 1
    if algorithm.evict is not None:
        last_chunk = chunk_tokens if whole else _last_chunk(algorithm.evict, chunk_tokens)
        tokens = (max_tokens - (rest_tokens or 0), max_tokens)
        served = len(_served(algorithm, model))
        request_pages = peak_pages(algorithm.evict, geometry, served, tokens, whole=whole)
    plan = Plan(
        geometry=geometry,
        sequences=sequences,
        max_tokens=max_tokens,
        chunk_tokens=chunk_tokens,
        last_chunk=last_chunk,
        row_pages=row_pages,
        own_pages=own_pages,
        request_pages=request_pages,
        frames=frames,
    )
    check_fast_tier(settings, algorithm, plan)
    _check_last_tier(settings, plan)
    return plan


def _check_context(model: ModelInfo, workload: Workload) -> None:
    if workload.most_context > model.max_tokens:
        raise ValueError(
            f"task.length asks for requests of up to {workload.most_context} tokens, model "
            f"{model.name} takes {model.max_tokens}; lower task.length to {model.max_tokens}"
        )


def _check_questions(settings: Settings, algorithm: Algorithm) -> None:
    """Later questions that are prefilled densely read the context where it was stored."""
    protocol = settings.protocol
    if protocol.name != "question_dense" or protocol.num_questions == 1:
        return
    if build_mapper(settings, algorithm).moves:
        raise ValueError(
            f"protocol=question_dense with protocol.num_questions={protocol.num_questions} reads a "
            f"context again, which partition={settings.partition.name} moves to other pages; use "
            "partition=packed, or protocol=question_sparse"
        )


def _check_roles(settings: Settings, algorithm: Algorithm) -> None:
    retrieve, evict = algorithm.retrieve, algorithm.evict
    if evict is None or retrieve is None:
        return
    if retrieve.kind == "cluster":
        raise ValueError(
            f"algo={settings.algo.name}: algo.evict drops tokens by their place, and the clusters "
            "of algo.retrieve change places; use algo/evict=none, or a retriever of blocks or "
            "tokens"
        )
    if retrieve.needs_positions:
        raise ValueError(
            f"algo={settings.algo.name}: algo.evict drops tokens, and algo.retrieve counts on each "
            "being where it was; use algo/evict=none, or another retriever"
        )
    if evict.sees == "attention" and evict.decodes:
        raise ValueError(
            f"algo={settings.algo.name}: algo.evict follows the attention of every step to all "
            "that is left, and algo.retrieve reads a part of it; use algo/retrieve=none, or "
            "algo/evict=snapkv, knorm or streaming"
        )


def _last_chunk(evict: Evictor, chunk_tokens: int) -> int:
    """Tokens of the last chunk of a context: the queries that an evictor asks are in one."""
    window = evict.window or 1
    if window > chunk_tokens:
        raise ValueError(
            f"backend.chunk_tokens={chunk_tokens} is less than the {window} queries that "
            f"algo.evict asks; raise it to {window}, or lower algo.evict.window_tokens"
        )
    return window


def _served(algorithm: Algorithm, model: ModelInfo) -> set[int]:
    """Layers on which the roles act."""
    return set(range(algorithm.dense_layers, model.num_layers)) - model.windowed_layers


def _check_layers(settings: Settings, algorithm: Algorithm, model: ModelInfo) -> None:
    if not _served(algorithm, model) and not algorithm.is_dense:
        raise ValueError(
            f"algo.dense_layers={algorithm.dense_layers} leaves algo={settings.algo.name} no layer "
            f"to act on: model {model.name} has {model.num_layers} layers, "
            f"{len(model.windowed_layers)} of them windowed; lower it, or use algo=dense"
        )
    if algorithm.retrieve is not None:
        _check_leaders(settings, algorithm.retrieve, sorted(_served(algorithm, model)))


def _check_leaders(settings: Settings, retrieve: Retriever, served: list[int]) -> None:
    """Every layer that reads what another selects has such a layer before it."""
    leading = False
    for layer in served:
        leading |= retrieve.leads(layer)
        if not (leading or retrieve.reads_all(layer)):
            raise ValueError(
                f"algo={settings.algo.name}: layer {layer} reads what a layer before it selects, "
                "and none that does is served by it; lower algo.dense_layers, or let other layers "
                "select"
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


def check_fast_tier(settings: Settings, algorithm: Algorithm, plan: Plan) -> None:
    """One step of one layer fits; raises ValueError that says what would."""
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
    partition = algorithm.retrieve.partition_size if algorithm.retrieve else 1
    # Beside the chunk, the rest of a partition that began before it.
    chunk_pages = -(-chunk // size) + 1 + max(0, -(-partition // size) - 1)
    chunk_pages = heads * min(chunk_pages, -(-plan.max_tokens // size))
    rows = plan.sequences * heads
    needs = [
        (chunk_pages, f"{heads} kv heads x a chunk of {chunk} tokens"),
        (rows, f"{rows} rows that append a token"),
    ]
    if algorithm.retrieve is not None:
        tokens = min(algorithm.retrieve.most_tokens(plan.max_tokens), plan.max_tokens)
        pages = -(-tokens // min(partition, size))
        pages = min(pages, plan.row_pages)
        needs.append((rows * pages, f"{rows} rows x {tokens} selected tokens"))
    return max(needs)


def _check_last_tier(settings: Settings, plan: Plan) -> None:
    last = settings.tier.levels[-1]
    needed = plan.request_pages
    if plan.frames[last] < needed:
        size = format_size(needed * plan.geometry.page_bytes)
        lower = " or use tier=hbm+cpu," if len(settings.tier.levels) == 1 else ""
        raise ValueError(
            f"tier.{last}.size={_shown(settings, last)} holds {plan.frames[last]} pages, "
            f"a request of {plan.max_tokens} tokens takes {needed}; raise it to {size},{lower} or "
            "lower task.length"
        )


def _check_baseline(settings: Settings, plan: Plan) -> None:
    """Dense attention, which every run compares with, keeps what an evictor drops."""
    last, geometry = settings.tier.levels[-1], plan.geometry
    needed = geometry.num_layers * geometry.num_kv_heads * plan.row_pages
    if plan.frames[last] < needed:
        size = format_size(needed * geometry.page_bytes)
        raise ValueError(
            f"tier.{last}.size={_shown(settings, last)} holds {plan.frames[last]} pages, which is "
            f"enough for algo.evict, but the dense baseline of the run takes {needed}; raise it to "
            f"{size}, or use tier=hbm+cpu with a small tier.hbm.size"
        )


def _shown(settings: Settings, level: str) -> str:
    size = settings.tier.arenas[level].size
    return format_size(size) if isinstance(size, int) else str(size)
