"""What a slot of vLLM's cache holds, where keys and values are in levels of this project."""

from dataclasses import replace
from typing import Any, ClassVar

from backends.vllm.compose import compose_for, is_composed


class Digests:
    """What a slot of vLLM's cache holds: one number where keys and values are elsewhere.

    vLLM asks for that without its config, after it has made the layers of the same engine; a
    memory that finds another kind of cache than its own refuses it.
    """

    hosts: ClassVar[bool] = False

    @classmethod
    def note(cls, vllm_config: Any) -> None:
        """Layers of this engine are made."""
        composed = is_composed(vllm_config)
        cls.hosts = composed and compose_for(vllm_config).hosting is not None

    @classmethod
    def of(cls, spec: Any) -> Any:
        """The spec of a layer that was just made."""
        return replace(spec, state_content_bytes=spec.dtype.itemsize) if cls.hosts else spec
