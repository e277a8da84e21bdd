"""What a run yields before anything is computed from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.finish import Finish
from harness.metric import Metric
from memory_tiers.counters import Counters

Floats = NDArray[np.float32]


class Likelihood(NamedTuple):
    """Of a continuation: the sum of its log-probabilities, and whether each token was likeliest."""

    log_probability: float
    is_greedy: bool

    def __str__(self) -> str:
        """As it stands among answers."""
        return f"log-likelihood {self.log_probability:.4f}" + ", greedy" * self.is_greedy


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One request through one arm. Times are seconds of one monotonic clock.

    score: in [0, 1], None for a load that is not scored; token_times_s: when each output token
    was there, none for a request that broke off; started_s: when the request was handed to the
    backend, or when the one before it on the same context had ended; error: why it broke off;
    likelihood: of a continuation that was scored; question: which one of its context;
    kv_read_share: pages that its decode steps read by those that dense attention reads, None where
    that is unknown.
    """

    uid: str
    task: str
    arm: str
    answer: str
    score: float | None
    num_prompt_tokens: int
    num_output_tokens: int
    started_s: float
    token_times_s: tuple[float, ...]
    finish: Finish
    error: str | None = None
    likelihood: Likelihood | None = None
    question: int = 1
    kv_read_share: float | None = None


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a probe saw; see `backends.probe` for recalled_NLH and error_NLH.

    every: decode steps from one comparison to the next; uids: of the requests that ran once more;
    differing: those of them whose answers were not the measured ones.
    """

    every: int
    uids: tuple[str, ...]
    differing: tuple[str, ...]
    recalled_NLH: Floats
    error_NLH: Floats


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """All requests of one arm: the dense baseline or the system under test.

    page_bytes, page_tokens: size of a page of KV; peak_bytes: by tier, and `index`;
    effective: settings read back from the running system (kernel, frames per tier, threads);
    probed: None where no probe was asked for; task_metrics: what the task itself makes of it.
    """

    name: str
    outcomes: tuple[Outcome, ...]
    counters: Counters
    peak_bytes: dict[str, int]
    page_bytes: int
    page_tokens: int
    effective: dict[str, Any] = field(default_factory=dict)
    probed: Probed | None = None
    task_metrics: Mapping[str, Metric] = field(default_factory=dict)
