"""A snapshot of every tensor and number that an object of ours can reach."""

from collections.abc import Mapping
from typing import Any

import torch

PACKAGES = ("memory_tiers", "sparse_algos", "backends")


def state_of(thing: Any) -> dict[str, Any]:
    """Values by path; tensors are cloned."""
    found: dict[str, Any] = {}
    _walk(thing, "", found, set())
    return found


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Paths whose values differ; NaN equals itself."""
    paths = sorted({*before, *after})
    return [path for path in paths if not _same(before.get(path), after.get(path))]


def _walk(thing: Any, path: str, found: dict[str, Any], visited: set[int]) -> None:
    if isinstance(thing, torch.Tensor):
        found[path] = thing.clone()
    elif isinstance(thing, tuple | list):
        for number, part in enumerate(thing):
            _walk(part, f"{path}[{number}]", found, visited)
    elif isinstance(thing, Mapping):
        for key, part in thing.items():
            _walk(part, f"{path}[{key}]", found, visited)
    elif type(thing).__module__.split(".")[0] in PACKAGES:
        if id(thing) not in visited:
            visited.add(id(thing))
            _walk_attributes(thing, path, found, visited)
    else:
        found[path] = thing


def _walk_attributes(thing: Any, path: str, found: dict[str, Any], visited: set[int]) -> None:
    for name, part in vars(thing).items():
        _walk(part, f"{path}.{name}", found, visited)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        as_bytes = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in (one, other)]
        return one.shape == other.shape and torch.equal(*as_bytes)
    return type(one) is type(other) and bool(one == other)
