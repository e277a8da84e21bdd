"""Every name of vLLM that this project uses; nothing else imports vLLM."""

from typing import Any

from backends.vllm.versions import installed_version, refusal_of

if (_reason := refusal_of(installed_version())) is not None:
    raise ValueError(_reason)

from vllm import SamplingParams
from vllm.config import get_current_vllm_config_or_none
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.attention.backend import (
    AttentionBackend,
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    MultipleOf,
)
from vllm.v1.attention.backends.registry import (
    AttentionBackendEnum,
    register_backend,
)
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.kv_cache_interface import KVCacheLayout

__all__ = [
    "AttentionBackend",
    "AttentionBackendEnum",
    "AttentionImpl",
    "AttentionMetadataBuilder",
    "CommonAttentionMetadata",
    "EngineArgs",
    "KVCacheLayout",
    "LLMEngine",
    "MultipleOf",
    "RequestOutputKind",
    "SamplingParams",
    "current_platform",
    "get_current_vllm_config_or_none",
    "register_backend",
    "stock_cpu_backend",
    "stock_worker",
]


def stock_cpu_backend() -> Any:
    """The attention backend that ours stands in for on CPUs; its module is there on CPUs only."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    return CPUAttentionBackend


def stock_worker() -> Any:
    """The worker that vLLM itself takes on this platform."""
    if current_platform.is_cpu():
        from vllm.v1.worker.cpu_worker import CPUWorker

        return CPUWorker
    from vllm.v1.worker.gpu_worker import Worker

    return Worker
