"""Whether the numbers of a run may be used, decided before any statistics."""

from collections.abc import Mapping

from harness.metric import Metric

# What a comparison may be gated on: a NaN in one of these spoils the run.
GATED = ("median_ttft_ms", "median_tpot_ms", "output_throughput", "tokens_per_sample")
# As MLPerf inference has it: answers of another length make another workload.
TOKENS_RATIO_LIMITS = (0.9, 1.1)


def reasons_against(
    *,
    metrics: Mapping[str, Mapping[str, Metric]],
    comparisons: Mapping[str, Mapping[str, Metric]],
    baseline: str,
    num_planned: int,
    status: str,
) -> list[str]:
    """Every reason not to trust a run, in words; none means that it is valid.

    metrics: by arm; comparisons: by arm that is not the baseline.
    """
    reasons = [] if status == "ok" else [f"the run ended as {status}"]
    if baseline not in metrics:
        reasons.append(f"no {baseline} baseline was measured")
    for arm, measured in metrics.items():
        reasons += reasons_against_arm(arm, measured, num_planned)
    for arm, ratios in comparisons.items():
        reasons += reasons_against_lengths(arm, baseline, ratios["tokens_per_sample_ratio"])
    return reasons


def reasons_against_arm(arm: str, metrics: Mapping[str, Metric], num_planned: int) -> list[str]:
    """What is wrong with one arm by itself."""
    num_done, num_tokens = metrics["request_throughput"].n, metrics["output_throughput"].n
    reasons = []
    if num_done == 0:
        reasons.append(f"{arm}: no request was completed")
    elif num_tokens == 0:
        reasons.append(f"{arm}: no output token was counted")
    if 0 < num_done < num_planned:
        reasons.append(f"{arm}: {num_done} of {num_planned} requests were completed")
    broken = [name for name in GATED if metrics[name].status == "invalid"]
    return reasons + [f"{arm}: {name} is not a finite number" for name in broken]


def reasons_against_lengths(arm: str, baseline: str, ratio: Metric) -> list[str]:
    """Shorter answers look faster, so their length must be that of the baseline."""
    low, high = TOKENS_RATIO_LIMITS
    if ratio.value is None or low <= ratio.value <= high:
        return []
    return [
        f"{arm}: {100 * ratio.value:.0f} % of the output tokens of {baseline}, outside "
        f"{100 * low:.0f}-{100 * high:.0f} %: the speed comparison is invalid"
    ]
