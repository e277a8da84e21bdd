"""Who starts the engines of a run, one for each arm."""

from abc import ABC, abstractmethod

from backends.base import Backend
from backends.transformers.engine import TransformersBackend
from backends.transformers.loading import ModelInfo
from harness.prepared import Prepared
from harness.settings import Settings
from harness.workload import Workload
from sparse_algos.base import Algorithm


class Engines(ABC):
    """Engines of one kind.

    num_parameters: of the model, None until it is loaded; probed: the arm under test, where what
    its attention kept of dense attention can be looked at.
    """

    num_parameters: int | None = None
    probed: TransformersBackend | None = None

    @abstractmethod
    def check(
        self, settings: Settings, algorithm: Algorithm, info: ModelInfo, workload: Workload
    ) -> None:
        """Refuse with a ValueError of one line what could not run; starts nothing."""

    @abstractmethod
    def start(self, prepared: Prepared, arms: dict[str, Backend]) -> None:
        """Start an engine for each arm and add it to `arms`; raises RefusedError."""
