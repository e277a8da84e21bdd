"""A worker for `vllm serve --worker-cls`, which serves with the composed system or not at all.

vLLM tells of a plug-in that it could not load by a line in its log, and goes on without it. A
worker that it cannot load ends it; so whoever names this one gets no dense answers unawares.
"""

from typing import Any

from backends.vllm.activation import Activation, Worker
from backends.vllm.checks import NOT_NAMED
from backends.vllm.compat import stock_worker
from backends.vllm.composition import KEY
from backends.vllm.reason import told


class CheckedWorker(Worker, stock_worker()):  # type: ignore[misc]
    """The platform's own, with the report of `collective_rpc`."""

    def load_model(self, *arguments: Any, **named: Any) -> Any:
        """Load, then see what each layer runs; raises ValueError where it is not ours."""
        with told():
            if KEY not in (self.vllm_config.additional_config or {}):
                raise ValueError(NOT_NAMED)
        loaded = super().load_model(*arguments, **named)
        with told():
            check(self.kvloom_activation())
        return loaded


def check(seen: Activation) -> None:
    """Raise ValueError if a layer runs another attention than the project's."""
    if not seen.is_ours:
        kinds = ", ".join(sorted(set(seen.implementations.values()))) or "no attention"
        raise ValueError(
            f"the plug-in {KEY} is not active: vLLM runs {kinds}; see its log, VLLM_PLUGINS, and "
            "--attention-backend CUSTOM on GPUs"
        )
