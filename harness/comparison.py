"""An arm against the dense baseline of the same run, request by request."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median, stdev

from scipy import stats

from harness.accuracy import LEVEL
from harness.metric import Interval, Metric, Quantity, quotient
from harness.metrics import arm_metrics, e2el_ms, tpot_ms, ttft_ms
from harness.outcome import ArmResult, Outcome
from harness.paired_scores import (
    ByTask,
    Pair,
    interval,
    mean_change,
)
from harness.tasks.questions import context_of

SLOWDOWN = Quantity(unit="ratio", direction="lower", source="client")
SPEEDUP = Quantity(unit="ratio", direction="higher", source="client")
LENGTH = Quantity(unit="ratio", direction=None, source="client")
BYTES_RATIO = Quantity(unit="ratio", direction="lower", source="accounting")
DIFFERENCE = Quantity(unit="score", direction="higher", source="client")

LATENCIES: dict[str, Callable[[Outcome], float | None]] = {
    "ttft": ttft_ms,
    "tpot": tpot_ms,
    "e2el": e2el_ms,
}

Both = tuple[Outcome, Outcome]


def compare_to_dense(arm: ArmResult, dense: ArmResult) -> dict[str, Metric]:
    """Ratios (and differences of scores) of an arm to dense, over the requests both answered."""
    pairs = paired(arm, dense)
    metrics: dict[str, Metric] = {}
    for name, latency in LATENCIES.items():
        metrics |= latency_ratios(name, [(latency(ours), latency(base)) for ours, base in pairs])
    lengths = [(ours.num_output_tokens, base.num_output_tokens) for ours, base in pairs]
    metrics["tokens_per_sample_ratio"] = LENGTH.metric(
        quotient(sum(ours for ours, _ in lengths), sum(base for _, base in lengths)),
        n=len(pairs),
        aggregation="ratio of sums",
    )
    return metrics | arm_ratios(arm, dense) | score_differences(pairs)


def paired(arm: ArmResult, dense: ArmResult) -> list[Both]:
    """The outcomes of the same request in both arms, in the order of the arm."""
    base = {outcome.uid: outcome for outcome in dense.outcomes}
    return [(outcome, base[outcome.uid]) for outcome in arm.outcomes if outcome.uid in base]


def latency_ratios(
    name: str, pairs: Sequence[tuple[float | None, float | None]]
) -> dict[str, Metric]:
    """Geometric mean of the ratios with its t interval on the log scale, and their median."""
    ratios = positive_ratios(pairs)
    logs = [math.log(ratio) for ratio in ratios]
    mean = math.exp(fmean(logs)) if logs else None
    return {
        f"{name}_ratio": SLOWDOWN.metric(
            mean, n=len(logs), aggregation="geometric mean", ci=t_interval(logs)
        ),
        f"median_{name}_ratio": SLOWDOWN.metric(
            median(ratios) if ratios else None, n=len(ratios), aggregation="median"
        ),
    }


def positive_ratios(pairs: Sequence[tuple[float | None, float | None]]) -> list[float]:
    """The ratios of pairs that have one with a logarithm; a NaN if a latency is not finite."""
    known = [(ours, base) for ours, base in pairs if ours is not None and base is not None]
    if not all(math.isfinite(ours) and math.isfinite(base) for ours, base in known):
        return [math.nan]
    return [ours / base for ours, base in known if ours > 0 and base > 0]


def t_interval(logs: Sequence[float]) -> Interval | None:
    """The t interval of a mean of logarithms, as ratios; None of fewer than two."""
    if len(logs) < 2:
        return None
    mean = fmean(logs)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(logs) - 1)) * stdev(logs) / len(logs) ** 0.5
    return Interval(
        lo=math.exp(mean - half), hi=math.exp(mean + half), level=LEVEL, method="t on log ratios"
    )


def arm_ratios(arm: ArmResult, dense: ArmResult) -> dict[str, Metric]:
    """Ratios of what is known of an arm as a whole: throughput, bytes read, peak bytes."""
    ours, base = arm_metrics(arm), arm_metrics(dense)
    peaks = sorted(name for name in ours if name.startswith("peak_mem_bytes_"))
    quantities = {
        "output_throughput": SPEEDUP,
        "request_throughput": SPEEDUP,
        "kv_read_bytes_per_decode_step": BYTES_RATIO,
        **dict.fromkeys(peaks, BYTES_RATIO),
    }
    return {
        f"{name}_ratio": quantity.metric(
            quotient(ours[name].value, base[name].value), n=ours[name].n, aggregation="ratio"
        )
        for name, quantity in quantities.items()
        if name in base
    }


def score_differences(pairs: Sequence[Both]) -> dict[str, Metric]:
    """The mean change of the score by task, with the interval of paired requests."""
    by_task = scored_pairs(pairs)
    metrics = {
        f"score_difference_{task}": _difference({task: ones}, n=len(ones), aggregation="mean")
        for task, ones in by_task.items()
    }
    macro = _difference(by_task, n=len(by_task), aggregation="mean over tasks")
    return metrics | {"macro_score_difference": macro}


def scored_pairs(pairs: Sequence[Both]) -> dict[str, list[Pair]]:
    """The scores of the requests that both arms scored, by task, dense first."""
    by_task: dict[str, list[Pair]] = {}
    for ours, base in pairs:
        if ours.score is not None and base.score is not None:
            pair = Pair(base.score, ours.score, context_of(ours.uid, ours.question))
            by_task.setdefault(ours.task, []).append(pair)
    return dict(sorted(by_task.items()))


def _difference(by_task: ByTask, *, n: int, aggregation: str) -> Metric:
    if not by_task:
        return DIFFERENCE.metric(None, n=n, aggregation=aggregation)
    low, high = interval(by_task)
    ci = Interval(lo=low, hi=high, level=LEVEL, method="paired")
    return DIFFERENCE.metric(mean_change(by_task), n=n, aggregation=aggregation, ci=ci)
