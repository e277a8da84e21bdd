"""A complete running system, built from settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from backends.attention.base import AttentionKernel
from backends.cluster_index import ClusterIndex
from backends.hashed_index import HashedIndex
from backends.index import Index
from backends.paged_attention import PagedAttention
from backends.pruned_index import PrunedIndex
from backends.rebuilt_index import RebuiltIndex
from backends.row_attention import LayerRules
from backends.scheduler import Schedule
from backends.transformers.engine import TransformersBackend
from backends.transformers.loading import (
    ModelInfo,
    describe_dummy,
    describe_local,
    load_dummy,
    load_local,
)
from harness.asked import model_path
from harness.build import build, build_mapper
from harness.preflight import Plan
from harness.settings import DummyModel, Settings
from memory_tiers.counters import Counters
from memory_tiers.level import Level
from memory_tiers.manager import CacheManager
from memory_tiers.page_table import PageTable
from memory_tiers.sharing import Sharing
from memory_tiers.summary_store import SummaryStore
from sparse_algos.base import Algorithm
from sparse_algos.retriever import IndexKind

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = ROOT / "models" / "bundled"
INDEXES: dict[IndexKind, type[Index]] = {
    "summaries": Index,
    "clusters": ClusterIndex,
    "pruned": PrunedIndex,
    "hashed": HashedIndex,
    "rebuilt": RebuiltIndex,
}


def choose_device(name: str) -> torch.device:
    """The device of a backend; raises ValueError when it is not there."""
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ValueError("backend.device='cuda' is not on this machine; use backend.device=cpu")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def tokenizer_path(settings: Settings) -> str:
    """Where the tokenizer is; random models borrow the bundled one."""
    return str(BUNDLED) if isinstance(settings.model, DummyModel) else model_path(settings.model)


def describe(settings: Settings, vocab_size: int) -> ModelInfo:
    """The model, no weight read."""
    model = settings.model
    if isinstance(model, DummyModel):
        return describe_dummy(model.shape, model.num_layers, model.dtype, vocab_size)
    return describe_local(model_path(model), model.dtype, download=model.download)


def load(settings: Settings, info: ModelInfo, device: torch.device) -> Any:
    """The weights."""
    model = settings.model
    if isinstance(model, DummyModel):
        return load_dummy(info, device)
    return load_local(info, model_path(model), device, download=model.download)


def assemble(
    settings: Settings,
    algorithm: Algorithm,
    plan: Plan,
    info: ModelInfo,
    model: Any,
    kernel: AttentionKernel,
) -> TransformersBackend:
    """An engine of its own memory over a model that others may share."""
    table = PageTable(plan.geometry, plan.sequences, plan.max_tokens, plan.own_pages)
    memory = build_memory(settings, table, plan.frames)
    attention = PagedAttention(
        algorithm=algorithm,
        memory=memory,
        index=_index(settings, algorithm, plan, memory, kernel),
        kernel=kernel,
        rules=LayerRules(
            info.windowed_layers | frozenset(range(algorithm.dense_layers)),
            info.windowed_layers,
            info.window,
        ),
        prefetch=settings.backend.prefetch,
    )
    return TransformersBackend(
        model,
        attention,
        schedule=Schedule(
            max_batch=plan.sequences,
            chunk_tokens=plan.chunk_tokens,
            most_rows=algorithm.evict.most_rows if algorithm.evict else None,
            preempt=settings.budget.preempt,
            last_chunk=plan.last_chunk,
        ),
    )


def build_memory(
    settings: Settings, table: PageTable, num_frames: Mapping[str, int]
) -> CacheManager:
    """Empty levels, and what says who may keep what."""
    rule = build(settings.budget.rule, "budget.rule") if settings.budget.rule else None
    sharing = Sharing(table, rule, settings.budget.window)
    levels = build_levels(settings, table, num_frames)
    return CacheManager(table.geometry, table, levels, sharing, Counters())


def build_levels(
    settings: Settings, table: PageTable, num_frames: Mapping[str, int]
) -> tuple[Level, ...]:
    """Empty levels, fastest first, for the pages of a table."""
    geometry = table.geometry
    names = settings.tier.levels
    levels = []
    for depth, name in enumerate(names):
        arena = settings.tier.arenas[name]
        tier = build(arena, f"tier.{name}", name, num_frames[name], geometry)
        device = geometry.device if depth == 0 else torch.device("cpu")
        frames = build(settings.metadata.table, "metadata.table", table.num_pages, device)
        policy = build(settings.cache.policy, "cache.policy") if name != names[-1] else None
        levels.append(Level(tier, frames, policy, table if depth == 0 else None))
    return tuple(levels)


def _index(
    settings: Settings,
    algorithm: Algorithm,
    plan: Plan,
    memory: CacheManager,
    kernel: AttentionKernel,
) -> Index | None:
    if algorithm.retrieve is None:
        return None
    geometry = plan.geometry
    spec = algorithm.retrieve.summary_spec(geometry.head_dim, geometry.dtype)
    partitions = algorithm.retrieve.most_partitions(plan.max_tokens)
    num_rows = geometry.num_layers * memory.table.num_rows
    store = SummaryStore(spec, num_rows, partitions, geometry.device)
    mapper = build_mapper(settings, algorithm)
    return INDEXES[algorithm.retrieve.index_kind](algorithm.retrieve, mapper, store, memory, kernel)
