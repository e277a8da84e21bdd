"""From what an engine's config asks for to the composed system.

Configs are the harness's to read, which lies above: it is found as a plug-in of ours.
"""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from backends.vllm.composition import KEY, Composition
from backends.vllm.reason import told

GROUP, NAME = "kvloom.composers", "vllm"


@dataclass(frozen=True)
class _Asked:
    """composed: as JSON; config: of the model, which its name and type stand for."""

    composed: str
    name: str
    dtype: str
    config: Any = field(compare=False)


def is_composed(vllm_config: Any) -> bool:
    """Whether an engine of this config runs a system of ours."""
    return vllm_config is not None and KEY in (vllm_config.additional_config or {})


@told()
def compose_for(vllm_config: Any) -> Composition:
    """The system of an engine; raises ValueError for a config that makes none."""
    model = vllm_config.model_config
    composed = json.dumps(vllm_config.additional_config[KEY], sort_keys=True, default=str)
    dtype = str(model.dtype).removeprefix("torch.")
    return _compose(_Asked(composed, model.model, dtype, model.hf_config))


# vLLM asks for every layer.
@lru_cache(maxsize=1)
def _compose(asked: _Asked) -> Composition:
    found = list(entry_points(group=GROUP, name=NAME))
    if not found:
        raise ValueError(f"no composer {NAME!r} of {GROUP} is installed: install this project")
    composed: Composition = found[0].load()(
        json.loads(asked.composed), name=asked.name, config=asked.config, dtype=asked.dtype
    )
    return composed
