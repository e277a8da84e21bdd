"""What stands against a server, as far as its command line and the model's config tell."""

import os
from collections.abc import Sequence
from typing import Any

from backends.vllm.compat import create_config, current_platform, serve_arguments
from backends.vllm.compose import compose_for
from backends.vllm.composition import KEY
from backends.vllm.plugin import is_chosen, is_registered

# The KV connector that carries summaries, by its class, and by module and class of its spec.
OURS = ("OffloadingConnector", "backends.vllm.offload", "HostOffloadingSpec")
WORKER = "backends.vllm.worker.CheckedWorker"
NOT_NAMED = (
    f"a composed system is to be served, and none is named: give "
    f'--additional-config \'{{"{KEY}": ["algo=quest"]}}\''
)


def check(words: Sequence[str]) -> None:
    """Raise ValueError with everything that stands against `vllm serve ...`; starts nothing."""
    arguments = serve_arguments(words)
    if KEY not in (arguments.additional_config or {}):
        raise ValueError(NOT_NAMED)
    reasons = []
    if arguments.worker_cls not in ("auto", WORKER):
        reasons.append(f"--worker-cls={arguments.worker_cls} is not {WORKER}; leave it out")
    if not is_registered():
        reasons.append(_not_loaded())
    config = create_config(arguments)
    if not (current_platform.is_cpu() or is_chosen(config)):
        reasons.append("vLLM runs an attention of its own; add --attention-backend CUSTOM")
    composition = compose_for(config)
    model = config.model_config
    layout = composition.layout(
        block_tokens=config.cache_config.block_size,
        num_kv_heads=model.get_num_kv_heads(config.parallel_config),
        head_dim=model.get_head_size(),
    )
    reasons += composition.refusals() + layout.refusals()
    reasons += against(config) + _against_model(model)
    if reasons:
        name = composition.algorithm.name
        raise ValueError(f"vllm serve, algo={name}: {'; '.join(dict.fromkeys(reasons))}")


def against(config: Any) -> list[str]:
    """What of an engine's config is not served."""
    claims = {
        "speculative decoding takes tokens back, and summaries keep them": (
            config.speculative_config is not None
        ),
        "several workers share a layer's heads": config.parallel_config.world_size > 1,
    }
    return [claim for claim, holds in claims.items() if holds] + _against_connector(config)


def _against_connector(config: Any) -> list[str]:
    """Summaries of a block have to come with it."""
    if (connector := config.kv_transfer_config) is None:
        return []
    if compose_for(config).hosting is not None:
        return [
            f"tier=hbm+cpu leaves digests in vLLM's blocks, which {connector.kv_connector} would "
            "carry; use tier=hbm, or no KV connector"
        ]
    extra = connector.kv_connector_extra_config
    named = connector.kv_connector, extra.get("spec_module_path"), extra.get("spec_name")
    if named != OURS or not current_platform.is_cpu():
        return [
            f"the KV connector {connector.kv_connector} brings blocks without summaries; on CPUs "
            f"{OURS[0]} with spec_name={OURS[2]}, spec_module_path={OURS[1]} brings them"
        ]
    return []


def _not_loaded() -> str:
    if (named := os.environ.get("VLLM_PLUGINS")) is not None:
        return f"VLLM_PLUGINS={named} shuts the plug-in {KEY} out; add it there, or unset that"
    return f"vLLM could not load the plug-in {KEY}; see its log above, and install this project"


def _against_model(model: Any) -> list[str]:
    """What of a model is not served; of layers one by one, the worker tells once it has them."""
    window = model.get_sliding_window()
    return [] if window is None else [f"the model has a sliding window of {window} tokens"]
