"""The one place where settings become objects."""

import inspect
from importlib import import_module
from typing import Any

from harness.settings import Component, Settings
from memory_tiers.base import PartitionMapper, options
from sparse_algos.base import Algorithm
from sparse_algos.selection import PartitionKind

PACKAGES = ("harness", "backends", "memory_tiers", "sparse_algos")


def build(component: Component, key: str, *positional: Any) -> Any:
    """An object of the component's class; raises ValueError that names the config key."""
    target = find(component, key)
    arguments = component.arguments
    try:
        inspect.signature(target).bind(*positional, **arguments)
    except TypeError as error:
        known = options(list(inspect.signature(target).parameters))
        raise ValueError(f"{key}: {error}; {component.target} takes {known}") from None
    values = {name: _value(value, f"{key}.{name}") for name, value in arguments.items()}
    return target(*positional, **values)


def find(component: Component, key: str) -> Any:
    """The class that a component names."""
    module_name, _, name = component.target.rpartition(".")
    if module_name.split(".")[0] in PACKAGES:
        try:
            return getattr(import_module(module_name), name)
        except (ModuleNotFoundError, AttributeError):
            pass
    raise ValueError(f"{key}._target_={component.target!r} names no class in {options(PACKAGES)}")


def build_algorithm(settings: Settings) -> Algorithm:
    """The algorithm that the three roles compose."""
    algo = settings.algo
    return Algorithm(
        name=algo.name,
        evict=build(algo.evict, "algo.evict") if algo.evict else None,
        retrieve=build(algo.retrieve, "algo.retrieve") if algo.retrieve else None,
        prefill=build(algo.prefill, "algo.prefill") if algo.prefill else None,
        dense_layers=algo.dense_layers,
    )


def build_mapper(settings: Settings, algorithm: Algorithm) -> PartitionMapper:
    """The first mapper that can place the algorithm's partitions."""
    if (retrieve := algorithm.retrieve) is None:
        first: PartitionMapper = build(settings.partition.mappers[0], "partition.mappers")
        return first
    return mapper_for(settings, algorithm.name, retrieve.kind, retrieve.partition_size)


def mapper_for(
    settings: Settings, algorithm_name: str, kind: PartitionKind, partition_size: int
) -> PartitionMapper:
    """The first mapper that can place such partitions; raises ValueError when none can."""
    refusals = []
    for component in settings.partition.mappers:
        mapper: PartitionMapper = build(component, "partition.mappers")
        refusal = mapper.refusal(kind, partition_size, settings.partition.page_tokens)
        if not refusal:
            return mapper
        refusals.append(refusal)
    raise ValueError(
        f"algo={algorithm_name} and partition={settings.partition.name} do not fit: "
        f"{'; '.join(refusals)}; use partition=auto, with blocks that divide a page or are whole "
        "pages"
    )


def _value(value: Any, key: str) -> Any:
    """An argument: another component is built, a list is frozen."""
    if isinstance(value, dict) and "_target_" in value:
        return build(Component.model_validate(value), key)
    return tuple(value) if isinstance(value, list) else value
