"""Everything that is known of a cell before a weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from backends.attention.base import AttentionKernel
from backends.transformers.loading import ModelInfo
from harness.preflight import Plan
from harness.settings import Settings
from harness.workload import Workload
from memory_tiers.trace_recorder import TraceRecorder
from sparse_algos.base import Algorithm

DENSE = Algorithm(name="dense", evict=None, retrieve=None)


@dataclass(frozen=True)
class Prepared:
    """Everything that can be known and refused before a weight is read.

    asked: the settings as they came; settings: with budgets in bytes turned into tokens.
    """

    asked: Settings
    settings: Settings
    algorithm: Algorithm
    info: ModelInfo
    tokenizer: Any
    workload: Workload
    plan: Plan
    kernel: AttentionKernel
    device: torch.device
    recorder: TraceRecorder | None

    @property
    def algorithms(self) -> Mapping[str, Algorithm]:
        """The arms: dense, and the algorithm unless it is dense itself."""
        if self.algorithm.is_dense:
            return {DENSE.name: DENSE}
        return {DENSE.name: DENSE, self.algorithm.name: self.algorithm}

    @property
    def at_once(self) -> int:
        """Requests handed to a backend together."""
        return self.plan.sequences
