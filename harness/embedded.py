"""The embedded engine: the arms share one model in this process."""

from backends.base import Backend
from backends.transformers.loading import ModelInfo
from harness.engines import Engines
from harness.prepared import Prepared
from harness.settings import Settings
from harness.system import assemble, load
from harness.workload import Workload
from sparse_algos.base import Algorithm


class Embedded(Engines):
    """See Engines."""

    def check(
        self, settings: Settings, algorithm: Algorithm, info: ModelInfo, workload: Workload
    ) -> None:
        """See Engines; the preflight has said it all."""

    def start(self, prepared: Prepared, arms: dict[str, Backend]) -> None:
        """See Engines."""
        settings, info = prepared.settings, prepared.info
        model = load(settings, info, prepared.device)
        self.num_parameters = sum(one.numel() for one in model.parameters())
        for name, algorithm in prepared.algorithms.items():
            arms[name] = self.probed = assemble(
                settings, algorithm, prepared.plan, info, model, prepared.kernel
            )
        assert self.probed is not None
        self.probed.attention.recorder = prepared.recorder
