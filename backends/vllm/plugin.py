"""What vLLM calls in each of its processes; inert without a composition in an engine's config.

On CPUs vLLM knows one attention backend, whose place ours takes; elsewhere ours is chosen by
`--attention-backend CUSTOM`.
"""

from typing import Any

from backends.vllm.compat import AttentionBackendEnum, current_platform, register_backend

MODULE = "backends.vllm.attention"


def register() -> None:
    """Tell vLLM where our classes are; may be called any number of times."""
    register_backend(_place(), _path())


def is_registered() -> bool:
    """Whether vLLM has called this plug-in, in this process."""
    return _place().is_overridden() and _place().get_path() == _path()


def is_chosen(vllm_config: Any) -> bool:
    """Whether the config of an engine names ours, which it has to elsewhere than on CPUs."""
    return vllm_config.attention_config.backend is AttentionBackendEnum.CUSTOM


def _place() -> Any:
    if current_platform.is_cpu():
        return AttentionBackendEnum.CPU_ATTN
    return AttentionBackendEnum.CUSTOM


def _path() -> str:
    return f"{MODULE}.{'CpuBackend' if current_platform.is_cpu() else 'PagedBackend'}"
