"""From what an engine's config asks for to the composed system.

Configs are the harness's to read, which lies above: it is found as a plug-in of ours.
"""

from importlib.metadata import entry_points
from typing import Any

from backends.vllm.composition import KEY, Composition

GROUP, NAME = "kvloom.composers", "vllm"


def compose_for(vllm_config: Any) -> Composition:
    """The system of an engine; raises ValueError for a config that makes none."""
    found = list(entry_points(group=GROUP, name=NAME))
    if not found:
        raise ValueError(f"no composer {NAME!r} of {GROUP} is installed: install this project")
    model = vllm_config.model_config
    composed: Composition = found[0].load()(
        vllm_config.additional_config[KEY],
        name=model.model,
        config=model.hf_config,
        dtype=str(model.dtype).removeprefix("torch."),
    )
    return composed
