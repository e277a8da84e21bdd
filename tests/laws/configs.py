"""Everything that conf/ offers, composed once; a new YAML takes part the moment it exists."""

from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from harness.build import build_algorithm, build_mapper
from harness.settings import Settings, validated
from sparse_algos.model_shape import ModelShape
from sparse_algos.retriever import Retriever

CONF = Path(__file__).parents[2] / "conf"
PAGE_TOKENS = 16
# Algorithms with other settings than their option has, for what only those can show. Under the
# name of an option they stand in its place.
SMALL_CLUSTERS = {
    "sinks": 2,
    "recents": 5,
    "cluster_tokens": 4,
    "rebuild_every": 8,
    "segment_tokens": 50,
}
SMALL_BLOCKS = {
    "_target_": "sparse_algos.retrieve.quest.Quest",
    "budget_tokens": 64,
    "sinks": 4,
    "recents": 16,
    "group_reduce": "max",
    "block_tokens": 4,
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "quest of 8": ("quest", {"block_tokens": 8}),
    "tidaldecode": ("tidaldecode", {"selecting_layers": [0, 2]}),
    "double_sparsity": ("double_sparsity", {"label_channels": 5}),
    "loki": ("loki", {"label_channels": 4}),
    "seerattention_r of 8": ("seerattention_r", {"block_tokens": 8}),
    "retroinfer": ("retroinfer", SMALL_CLUSTERS),
    "retroinfer without estimates": ("retroinfer", SMALL_CLUSTERS | {"estimated_share": 0}),
    "magicpig": ("magicpig", {"sinks": 2, "recents": 5, "rebuild_every": 8, "bits": 3}),
    "twilight": ("twilight", {"base": SMALL_BLOCKS, "top_p": 0.99}),
    "twilight of all weight": ("twilight", {"base": SMALL_BLOCKS, "top_p": 1.0}),
    "quest of 32": ("quest", {"block_tokens": 32, "sinks": 0, "recents": 1}),
    "arkvale": ("arkvale", {"block_tokens": 8, "sinks": 2, "recents": 5}),
    "arkvale of 32": ("arkvale", {"block_tokens": 32, "sinks": 0, "recents": 1}),
    "oracle_topp": ("oracle_topp", {"mass": 1}),
    "infllm": (
        "infllm",
        {"block_tokens": 8, "representatives": 2, "local_tokens": 5, "sinks": 2, "recents": 6},
    ),
    "shadowkv": ("shadowkv", {"outlier_chunks": 2, "sinks": 2, "recents": 5}),
    # Of full rank, where rebuilt keys are the keys.
    "shadowkv_lowrank": (
        "shadowkv_lowrank",
        {"outlier_chunks": 2, "sinks": 2, "recents": 5, "rank": 64},
    ),
}
# Algorithms with another pattern of prefill, or with settings of it that skip at the lengths of the
# laws. Under the name of an option they stand in its place.
X_ATTENTION = {"block_tokens": 16, "stride": 4, "threshold": 0.5}
PATTERNED: dict[str, tuple[str, dict[str, Any]]] = {
    "a_shape": ("a_shape", {"block_tokens": 16, "sinks": 4, "local_tokens": 24}),
    "minference": (
        "minference",
        {"block_tokens": 8, "vertical": 6, "slash": 5, "last_rows": 12, "sinks": 2, "recents": 3},
    ),
    "flexprefill": ("flexprefill", {"block_tokens": 16, "gamma": 0.4, "least_tokens": 16}),
    "xattention": ("xattention", X_ATTENTION),
    "quest after xattention": (
        "quest",
        {
            "_target_": "sparse_algos.prefill.xattention.XAttention",
            "dense_tokens": 0,
            **X_ATTENTION,
        },
    ),
}


def fitted(retrieve: Retriever, model: ModelShape) -> Retriever:
    """Fitted to a model that was never trained: with random tensors where it needs any."""
    if retrieve.trained is None:
        return retrieve.fitted(model)
    generator = torch.Generator().manual_seed(0)
    shapes = retrieve.tensor_shapes(model)
    found = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return retrieve.with_tensors(found, model)


def options(group: str) -> list[str]:
    """Names of the choices of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@lru_cache
def composed(*overrides: str) -> dict[str, Any]:
    """The plain config; callers copy before they change it."""
    with initialize_config_dir(str(CONF), version_base=None):
        return OmegaConf.to_container(compose("run", list(overrides)), resolve=True)


def settings_of(
    algo: str,
    partition: str = "auto",
    tier: str = "hbm",
    cache: str = "lru",
    *,
    page_tokens: int = PAGE_TOKENS,
    fast_bytes: int | None = None,
    max_batch: int = 3,
    chunk_tokens: int = 32,
) -> Settings:
    """Settings with these options; groups are composed one at a time, which keeps it fast.

    algo: an option, or one of VARIANTS or PATTERNED.
    """
    algo, pattern = PATTERNED.get(algo, (algo, {}))
    algo, changes = VARIANTS.get(algo, (algo, {}))
    raw = deepcopy(composed("load=batch", "model=dummy"))
    for group, option in (
        ("algo", algo),
        ("partition", partition),
        ("tier", tier),
        ("cache", cache),
    ):
        raw[group] = deepcopy(composed(f"{group}={option}")[group])
    if changes:
        raw["algo"]["retrieve"] |= changes
    if pattern:
        raw["algo"]["prefill"] = (raw["algo"]["prefill"] or {}) | pattern
    raw["partition"]["page_tokens"] = page_tokens
    raw["backend"] |= {"max_batch": max_batch, "chunk_tokens": chunk_tokens}
    if fast_bytes is not None:
        raw["tier"][raw["tier"]["levels"][0]]["size"] = fast_bytes
    return validated(raw)


def is_served(algo: str, partition: str, page_tokens: int = PAGE_TOKENS) -> bool:
    """Whether a mapper of this partition option can place what the algorithm selects."""
    settings = settings_of(algo, partition, page_tokens=page_tokens)
    try:
        build_mapper(settings, build_algorithm(settings))
    except ValueError:
        return False
    return True


def num_levels(tier: str) -> int:
    """Arenas of a tier option."""
    return len(composed(f"tier={tier}")["tier"]["levels"])


def placements() -> Iterator[tuple[str, str]]:
    """Every algorithm where `auto` places it, and every kind of partition wherever it can be.

    To a mapper, algorithms with partitions of one kind and size are one.
    """
    seen = set()
    for algo in sorted(ALGORITHMS, key=lambda name: (name not in TYPICAL, name)):
        retrieve = build_algorithm(settings_of(algo)).retrieve
        kind = None if retrieve is None else (retrieve.kind, retrieve.partition_size)
        for partition in ["auto"] if kind in seen else options("partition"):
            if is_served(algo, partition):
                yield algo, partition
        seen.add(kind)


# Those that stand for their kind where mappers are tried.
TYPICAL = ("dense", "quest", "oracle_topk", "retroinfer")
ALGORITHMS = sorted({*options("algo"), *VARIANTS, *PATTERNED})
# Those whose contexts are prefilled densely.
DENSE_PREFILL = [name for name in ALGORITHMS if settings_of(name).algo.prefill is None]
PLACEMENTS = list(placements())
HIERARCHIES = [tier for tier in options("tier") if num_levels(tier) > 1]
CACHES = options("cache")
# Every hierarchy with LRU, and two tiers with every policy.
MEMORIES = [(tier, "lru") for tier in HIERARCHIES] + [
    ("hbm+cpu", cache) for cache in CACHES if cache != "lru"
]
# Every mapper on every hierarchy, the policies in turn; and every policy on every hierarchy.
PLACES = [
    (algo, partition, tier, CACHES[(number + shift) % len(CACHES)])
    for number, (algo, partition) in enumerate(PLACEMENTS)
    for shift, tier in enumerate(HIERARCHIES)
] + [("quest", "auto", tier, cache) for tier in HIERARCHIES for cache in CACHES]
RETRIEVERS = [name for name in options("algo/retrieve") if name != "none"]
