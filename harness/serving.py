"""The composer that the plug-in of backends.vllm asks: from a config to a system for one model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends.transformers.loading import describe_config
from backends.vllm.composition import Composition
from harness.budgets import in_tokens
from harness.build import build_algorithm, build_mapper
from harness.composing import settings_from
from harness.hosting import hosting
from harness.settings import Settings, validated

SERVED = (("hbm",), ("hbm", "cpu"))


def composition(
    asked: Mapping[str, Any] | Sequence[str], *, name: str, config: Any, dtype: str
) -> Composition:
    """A system for the model of this name and config.

    asked: a whole config, or what the command line of a run would say: ["algo=quest", ...]. Raises
    ValueError of one line.
    """
    settings = validated(dict(asked)) if isinstance(asked, Mapping) else settings_from(list(asked))
    info = describe_config(Path(name).name, config, dtype)
    settings = in_tokens(settings, info)
    return compose(settings, build_algorithm(settings).fitted(info.shape))


def compose(settings: Settings, algorithm: Any) -> Composition:
    """The part of a system that runs inside another engine."""
    return Composition(
        algorithm=algorithm,
        mapper=build_mapper(settings, algorithm),
        page_tokens=settings.partition.page_tokens,
        kernel=settings.backend.kernel,
        hosting=hosting(settings, algorithm) if len(settings.tier.levels) > 1 else None,
        unserved=tuple(_unserved(settings)),
    )


def _unserved(settings: Settings) -> list[str]:
    """What has no place inside another engine, and would be read past."""
    claims = {
        f"tier={settings.tier.name} is not served; use tier=hbm, where KV is in vLLM's cache, or "
        "tier=hbm+cpu": settings.tier.levels not in SERVED,
        "budget=static counts what each request holds, and blocks of vLLM are of several; use "
        "budget=none": len(settings.tier.levels) > 1 and settings.budget.name == "static",
        "backend.prefill must be chunked": settings.backend.prefill != "chunked",
        "backend.prefetch has nothing to load": settings.backend.prefetch,
    }
    return [claim for claim, holds in claims.items() if holds]
