"""What vLLM calls in each of its processes; inert without a composition in an engine's config.

On CPUs vLLM knows one attention backend, whose place ours takes; elsewhere ours is chosen by
`--attention-backend CUSTOM`.
"""

from backends.vllm.compat import AttentionBackendEnum, current_platform, register_backend

MODULE = "backends.vllm.attention"


def register() -> None:
    """Tell vLLM where our classes are; may be called any number of times."""
    if current_platform.is_cpu():
        register_backend(AttentionBackendEnum.CPU_ATTN, f"{MODULE}.CpuBackend")
    else:
        register_backend(AttentionBackendEnum.CUSTOM, f"{MODULE}.PagedBackend")
