"""The algorithms of conf/ by what they can do, and how the laws are parametrised over them."""

import pytest
import torch

from harness.preflight import plan_for
from tests.laws.configs import ALGORITHMS, PLACEMENTS, settings_of
from tests.laws.laws import TIGHT_BUDGET
from tests.laws.system import MAX_TOKENS, Shape, algorithm_with

SHAPE = Shape()
SHAPES = {
    "one query head per kv head": Shape(group=1, kv_heads=3),
    "two": Shape(group=2, kv_heads=1),
    "four": Shape(group=4),
    "a window on layer 1": Shape(windowed=frozenset({1}), window=20),
}
EVICTORS = [
    name for name in ALGORITHMS if algorithm_with(settings_of(name), None).evict is not None
]
# Evictors that ask what every step attends to, which nobody knows who reads a part.
WATCHING = [
    name
    for name in EVICTORS
    for evict in [algorithm_with(settings_of(name), None).evict]
    if evict.sees == "attention" and evict.decodes
]
COMPOSED = [name for name in EVICTORS if name not in WATCHING]
RETRIEVING = [
    name for name in ALGORITHMS if algorithm_with(settings_of(name), None).retrieve is not None
]
CLUSTERING = [
    name
    for name in RETRIEVING
    if algorithm_with(settings_of(name), None).retrieve.kind == "cluster"
]
# What relies on tokens staying, and staying in place.
ROOTED = [
    name
    for name in RETRIEVING
    if name in CLUSTERING or algorithm_with(settings_of(name), None).retrieve.needs_positions
]


def is_exact(name: str) -> bool:
    """Whether answers are attention over what was read, and nothing else."""
    retrieve = algorithm_with(settings_of(name), None).retrieve
    return retrieve is None or not (retrieve.estimates or retrieve.corrects)


EXACT = [name for name in ALGORITHMS if is_exact(name)]
# Retrievers that read all that their budget allows.
GREEDY = [
    name
    for name in ALGORITHMS
    if name not in RETRIEVING or not algorithm_with(settings_of(name), None).retrieve.prunes
]
# An evictor's budget is a count of tokens, a retriever's may be a share.
BUDGETED = [
    (algo, partition, budget) for algo, partition in PLACEMENTS for budget in (TIGHT_BUDGET, 0.4)
]
budgets = pytest.mark.parametrize(("algo", "partition", "budget"), BUDGETED)
placements = pytest.mark.parametrize(("algo", "partition"), PLACEMENTS)


def budget_for(algo: str) -> int:
    """Less for clusters: in the worst case each of their tokens takes a page."""
    return TIGHT_BUDGET if algo not in CLUSTERING else 24


def fast_bytes_for(algo: str, partition: str, shape: Shape = SHAPE) -> int:
    """A fast tier that holds one step of one layer and little more."""
    settings, budget = settings_of(algo, partition), budget_for(algo)
    retrieve = algorithm_with(settings, budget).retrieve
    pages = shape.kv_heads * 3
    if retrieve is not None:
        size = min(retrieve.partition_size, settings.partition.page_tokens)
        info, cpu = shape.info, torch.device("cpu")
        plan = plan_for(settings, algorithm_with(settings, budget), info, MAX_TOKENS, cpu)
        per_row = min(-(-budget // size), plan.row_pages)
        pages = max(pages, 3 * shape.kv_heads * per_row)
    return (pages + 1) * settings.partition.page_tokens * shape.head_dim * 2 * 4
