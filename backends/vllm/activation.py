"""Proof that the plug-in acts: what each layer of an engine runs, and what went through it."""

from typing import Any, NamedTuple

from backends.vllm.requests import Requests
from backends.vllm.runtime import Runtime

EXTENSION = "backends.vllm.activation.Worker"
OURS = "PagedImpl"


class Activation(NamedTuple):
    """implementations: class of each attention layer's; chosen and dense: query rows, by layer."""

    implementations: dict[str, str]
    chosen: dict[int, int]
    dense: dict[int, int]

    @property
    def is_ours(self) -> bool:
        """Whether every layer runs the project's attention."""
        return bool(self.implementations) and set(self.implementations.values()) == {OURS}


class Worker:
    """What vLLM mixes into its worker; called by `collective_rpc`."""

    model_runner: Any

    def kvloom_activation(self) -> Activation:
        """What runs now."""
        model = self.model_runner.get_model()
        layers = {
            name: type(module.impl).__name__
            for name, module in model.named_modules()
            if hasattr(module, "impl") and hasattr(module, "attn_backend")
        }
        runtime = self.kvloom_runtime()
        rows = {} if runtime is None else dict(runtime.num_rows)
        chosen, dense = (
            {layer: count for (layer, acts), count in rows.items() if acts is kind}
            for kind in (True, False)
        )
        return Activation(layers, chosen, dense)

    def kvloom_runtime(self) -> Runtime | None:
        """Our part of the engine, for who is in the same process; None before the first step."""
        return next((one.runtime for one in self._kvloom_builders()), None)

    def kvloom_bind(self) -> None:
        """Let the steps know which tokens are of a context, a question and an answer."""
        for builder in self._kvloom_builders():
            builder.requests = Requests(self.model_runner)

    def _kvloom_builders(self) -> list[Any]:
        return [
            builder
            for groups in self.model_runner.attn_groups
            for group in groups
            for builder in group.metadata_builders
            if hasattr(builder, "runtime")
        ]
