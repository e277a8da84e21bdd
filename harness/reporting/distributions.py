"""Distributions of latencies over requests, as the steps of their ECDF."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from harness.record import RequestTimes, Sample
from harness.reporting.gather import Seen

LATENCIES = ("ttft", "tpot")
# Steps kept of one line: no eye tells more of them from a staircase.
MOST_STEPS = 65


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Milliseconds in rising order, evenly spaced over the ranks; num: how many there were."""

    values: tuple[float, ...]
    num: int


def latencies(name: str, arm: str, runs: Sequence[Seen]) -> Steps | None:
    """The latencies of all requests through an arm, over the trials; None where there are none."""
    known = [value for one in runs for value in _of_run(name, arm, one)]
    finite = [value for value in known if value is not None and isfinite(value)]
    return steps_of(finite) if finite else None


def steps_of(values: Sequence[float]) -> Steps:
    """All values in order, or as many quantiles as are drawn."""
    if len(values) <= MOST_STEPS:
        return Steps(values=tuple(sorted(values)), num=len(values))
    quantiles = np.quantile(values, np.linspace(0, 1, MOST_STEPS))
    return Steps(values=tuple(map(float, quantiles)), num=len(values))


def _of_run(name: str, arm: str, one: Seen) -> list[float | None]:
    if one.requests:
        return [_of_times(name, times) for times in one.requests if times.arm == arm]
    return [_of_sample(name, sample) for sample in one.samples if sample.arm == arm]


def _of_sample(name: str, sample: Sample) -> float | None:
    return sample.ttft_ms if name == "ttft" else sample.tpot_ms


def _of_times(name: str, times: RequestTimes) -> float | None:
    """See `harness.metrics`: the first token, or the mean gap between tokens."""
    if not times.token_times_s:
        return None
    if name == "ttft":
        return 1e3 * (times.token_times_s[0] - times.started_s)
    first, last, num_gaps = (
        times.token_times_s[0],
        times.token_times_s[-1],
        len(times.token_times_s) - 1,
    )
    return 1e3 * (last - first) / num_gaps if num_gaps else None
