"""Metrics of one arm, against numbers worked out by hand."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metric import Interval, Metric, Quantity
from harness.metrics import (
    arm_metrics,
    kv_metrics,
    latency_metrics,
    served_seconds,
    summaries,
    throughput_metrics,
)
from memory_tiers.counters import Counters, PhaseCounters
from tests.harness.facts import MIB, dense_arm, outcome, quest_arm

FINITE = st.floats(min_value=0.001, max_value=1e6)


def test_latencies_are_those_of_vllm_bench() -> None:
    # TTFT 100 ms; E2EL 140 ms; TPOT (140 - 100) / 2; gaps of 10 and 30 ms.
    metrics = latency_metrics(dense_arm(outcomes=(outcome("a"),)))
    values = {name: metrics[f"median_{name}"].value for name in ("ttft_ms", "tpot_ms", "e2el_ms")}
    assert values == pytest.approx({"ttft_ms": 100, "tpot_ms": 20, "e2el_ms": 140})
    assert metrics["median_itl_ms"].n == 2
    assert metrics["p90_itl_ms"].value == pytest.approx(28)


def test_gaps_are_pooled_over_requests_not_averaged_per_request() -> None:
    long = outcome("a", num_output_tokens=5, token_times_s=(1.1, 1.2, 1.3, 1.4, 1.5))
    short = outcome("b", num_output_tokens=2, token_times_s=(1.1, 1.6))
    metrics = latency_metrics(dense_arm(outcomes=(long, short)))
    # Four gaps of 100 ms and one of 500: the mean of the two requests' means would be 300.
    assert metrics["mean_itl_ms"].value == pytest.approx(180)


def test_time_per_output_token_needs_a_second_token() -> None:
    one = outcome("a", num_output_tokens=1, token_times_s=(1.1,))
    alone = latency_metrics(dense_arm(outcomes=(one,)))["median_tpot_ms"]
    assert (alone.value, alone.n, alone.status) == (None, 0, "unobservable")
    both = latency_metrics(dense_arm(outcomes=(one, outcome("b"))))["median_tpot_ms"]
    assert (both.value, both.n) == (pytest.approx(20), 1)


@pytest.mark.parametrize(("percent", "least"), [(90, 30), (95, 60), (99, 300)])
def test_a_tail_of_too_few_keeps_its_value_and_says_so(percent: int, least: int) -> None:
    few, enough = (summaries(list(range(n)))[f"p{percent}"] for n in (least - 1, least))
    assert (few.status, enough.status) == ("insufficient_n", "ok")
    assert few.value == pytest.approx((least - 2) * percent / 100)


@given(st.lists(FINITE, min_size=1, max_size=50))
def test_percentiles_are_linear_as_numpy_has_them(values: list[float]) -> None:
    ours = summaries(values)
    assert ours["p90"].value == np.percentile(values, 90, method="linear")
    assert ours["median"].value == pytest.approx(np.median(values))


def test_throughput_counts_the_time_from_first_start_to_last_token() -> None:
    apart = outcome("b", started_s=1.1, token_times_s=(1.2, 1.5), num_output_tokens=2)
    metrics = throughput_metrics(dense_arm(outcomes=(outcome("a"), apart)))
    assert metrics["request_throughput"].value == pytest.approx(2 / 0.5)
    assert metrics["output_throughput"].value == pytest.approx(5 / 0.5)
    assert metrics["tokens_per_sample"].value == pytest.approx(2.5)


def test_time_in_which_the_other_arm_was_served_does_not_count() -> None:
    later = outcome("b", started_s=10.0, token_times_s=(10.1, 10.11, 10.14))
    assert served_seconds([outcome("a"), later]) == pytest.approx(0.28)


@given(st.lists(st.tuples(FINITE, FINITE), max_size=8))
def test_served_time_is_the_length_of_the_union(spans: list[tuple[float, float]]) -> None:
    outcomes = [
        outcome(str(index), started_s=start, token_times_s=(start + length,))
        for index, (start, length) in enumerate(spans)
    ]
    edges = sorted({edge for start, length in spans for edge in (start, start + length)})
    union = sum(
        right - left
        for left, right in pairwise(edges)
        if any(start <= left and right <= start + length for start, length in spans)
    )
    assert served_seconds(outcomes) == pytest.approx(union)


def test_a_request_without_a_token_is_in_no_latency_and_no_rate() -> None:
    failed = outcome("b", num_output_tokens=0, token_times_s=())
    metrics = arm_metrics(dense_arm(outcomes=(outcome("a"), failed)))
    assert metrics["median_ttft_ms"].n == metrics["request_throughput"].n == 1


def test_an_arm_without_outcomes_has_nulls_and_no_zeros() -> None:
    metrics = arm_metrics(dense_arm(outcomes=(), counters=Counters()))
    client = [metric for metric in metrics.values() if metric.source == "client"]
    assert client
    assert all((metric.value, metric.status) == (None, "unobservable") for metric in client)
    for name in (
        "kv_read_bytes_per_decode_step",
        "read_amplification",
        "achieved_sparsity",
        "padding_waste",
    ):
        assert metrics[name].value is None


def test_kv_metrics_are_the_counts_of_decoding() -> None:
    metrics = kv_metrics(quest_arm())
    expected = {
        "kv_read_bytes_per_decode_step": 4 * MIB / 8,
        "read_amplification": 300 * 16 / 3200,
        "padding_waste": (24 + 1) / (64 + 36),
        "prefill_density": (170 + 30) / (680 + 120),
        "achieved_sparsity": 1 - 3200 / 16000,
        "kv_cache_hit_rate": 300 / 400,
        "buffering_to_mandatory": 600 / 400,
        "kv_transfer_ms_per_decode_step": 1000 / 8,
        "kv_transfer_exposed_ms_per_decode_step": 500 / 8,
        "pages_evicted": 5 + 2,
        "kv_bytes_moved_hbm_to_cpu": 4 * MIB,
        "kv_bytes_moved_hbm_to_cpu_per_decode_step": MIB / 8,
        "kv_bytes_moved_cpu_to_hbm": 2 * MIB,
        "kv_bytes_moved_cpu_to_hbm_per_decode_step": 2 * MIB / 8,
        "peak_mem_bytes_hbm": MIB,
        "peak_mem_bytes_cpu": 4 * MIB,
        "index_bytes": 65536,
        "page_table_bytes": 999,
    }
    assert {name: metric.value for name, metric in metrics.items()} == pytest.approx(expected)


def test_one_tier_has_no_hit_rate() -> None:
    # All 1000 of 1000 pages were found, which says nothing: there is nowhere else to look.
    rate = kv_metrics(dense_arm())["kv_cache_hit_rate"]
    assert (rate.value, rate.status) == (None, "unobservable")


def test_without_a_pattern_there_is_no_prefill_density() -> None:
    assert kv_metrics(dense_arm())["prefill_density"].value is None


def test_a_second_tier_that_was_never_used_moved_zero_bytes() -> None:
    idle = Counters(decode=PhaseCounters(steps=2))
    metrics = kv_metrics(quest_arm(counters=idle))
    assert metrics["kv_bytes_moved_cpu_to_hbm"].value == 0
    assert metrics["kv_bytes_moved_cpu_to_hbm_per_decode_step"].value == 0


def test_bytes_of_no_decode_step_are_not_a_number_per_step() -> None:
    prefilled = Counters(prefill=PhaseCounters(steps=1, bytes_moved=Counter({"hbm->cpu": 7})))
    metrics = kv_metrics(quest_arm(counters=prefilled))
    assert metrics["kv_bytes_moved_hbm_to_cpu"].value == 7
    assert metrics["kv_bytes_moved_hbm_to_cpu_per_decode_step"].value is None


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_becomes_an_invalid_null(broken: float) -> None:
    when = outcome("a", token_times_s=(broken, broken))
    for name in ("median_ttft_ms", "mean_ttft_ms", "p90_ttft_ms"):
        metric = latency_metrics(dense_arm(outcomes=(when, outcome("b"))))[name]
        assert (metric.value, metric.status) == (None, "invalid")


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_no_metric_can_hold_what_is_not_finite(broken: float) -> None:
    good = {"unit": "ms", "n": 1, "direction": None, "aggregation": "mean", "source": "client"}
    assert Metric(value=1.0, **good).value == 1
    with pytest.raises(ValueError, match="finite"):
        Metric(value=broken, **good)
    with pytest.raises(ValueError, match="finite"):
        Interval(lo=0.0, hi=broken, level=0.95, method="wilson")


def test_a_value_and_its_status_cannot_contradict() -> None:
    good = {"unit": "ms", "n": 1, "direction": None, "aggregation": "mean", "source": "client"}
    with pytest.raises(ValueError, match="cannot have status ok"):
        Metric(value=None, **good)
    with pytest.raises(ValueError, match="cannot have status unobservable"):
        Metric(value=0.0, status="unobservable", **good)


@given(st.one_of(st.none(), st.floats()), st.booleans())
def test_a_quantity_makes_a_metric_of_anything(value: float | None, enough: bool) -> None:
    quantity = Quantity(unit="ms", direction="lower", source="client")
    metric = quantity.metric(value, n=3, aggregation="mean", enough=enough)
    if value is None or not math.isfinite(value):
        assert metric.value is None
    else:
        assert metric.value == value
        assert metric.status == ("ok" if enough else "insufficient_n")
