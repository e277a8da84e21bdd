"""The arms of a comparison of algorithms: each with each budget, or the reason why not."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.transformers.loading import ModelInfo
from harness.build import build_algorithm, build_mapper
from harness.composing import options, settings_from
from harness.settings import AlgoSettings, Component, Settings
from sparse_algos.base import Algorithm


@dataclass(frozen=True)
class Arm:
    """One algorithm with one budget; budget: None where no role takes one.

    settings: those of the run, with this algorithm; refused: why it cannot run, None if it can.
    """

    name: str
    budget: int | None
    settings: Settings
    algorithm: Algorithm | None
    refused: str | None

    @property
    def key(self) -> str:
        """What tells it from all other arms."""
        dumped = self.settings.algo.model_dump(mode="json", by_alias=True)
        digest = hashlib.sha256(json.dumps(dumped, sort_keys=True).encode()).hexdigest()
        return f"{self.name}@{self.budget}-{digest[:12]}"


def arms_of(
    settings: Settings,
    names: Sequence[str] | None,
    words: Mapping[str, Sequence[str]],
    budgets: Sequence[int],
    info: ModelInfo,
) -> Iterator[Arm]:
    """Every algorithm but dense with every budget, in order; words: of a command line, by name."""
    known = options("algo")
    for key, named in (("algorithms", names or ()), ("settings", words)):
        if unknown := [name for name in named if name not in known]:
            raise ValueError(f"study.{key} names {unknown[0]!r}; choose of {', '.join(known)}")
    for name in names or known:
        algo = _composed(name, words.get(name, ()))
        if algo.evict is None and algo.retrieve is None:
            if algo.prefill is not None:
                yield arm_of(settings, algo, None, info)
            continue
        for budget in budgets:
            yield arm_of(settings, algo, budget, info)


def _composed(name: str, words: Sequence[str]) -> AlgoSettings:
    for word in words:
        if not word.lstrip("+").startswith("algo."):
            raise ValueError(
                f"study.settings.{name} has {word!r}: only what begins with algo. is an "
                "algorithm's own; give all else beside the experiment"
            )
    return settings_from([f"algo={name}", *words]).algo


def arm_of(settings: Settings, algo: AlgoSettings, budget: int | None, info: ModelInfo) -> Arm:
    """This composition with this budget in each role that takes one."""
    name = algo.name
    if budget is not None:
        roles = {role: _with_budget(getattr(algo, role), budget) for role in ("evict", "retrieve")}
        algo = algo.model_copy(update=roles)
    settings = settings.model_copy(update={"algo": algo})
    try:
        algorithm = build_algorithm(settings).fitted(info.shape)
        build_mapper(settings, algorithm)
    except ValueError as error:
        return Arm(name, budget, settings, None, str(error))
    return Arm(name, budget, settings, algorithm, None)


def _with_budget(role: Component | None, budget: int) -> Component | None:
    if role is None:
        return None
    raw: dict[str, Any] = role.model_dump(by_alias=True) | {"budget_tokens": budget}
    return Component.model_validate(raw)
