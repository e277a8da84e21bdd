"""An arm against dense, request by request."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.comparison import compare_to_dense, t_interval
from tests.harness.facts import dense_arm, faster, outcome, quest_arm


def test_ratios_are_of_the_same_request() -> None:
    # Requests of very different length, in another order: unpaired means would not give 0.5.
    slow = outcome("b", token_times_s=(11.0, 11.1, 11.4))
    ours = (
        outcome("b", arm="quest", token_times_s=(6.0, 6.05, 6.2)),
        faster("a", by=2),
        faster("not in dense", by=100),
    )
    metrics = compare_to_dense(quest_arm(outcomes=ours), dense_arm(outcomes=(outcome("a"), slow)))
    for name in ("ttft_ratio", "median_ttft_ratio", "tpot_ratio", "e2el_ratio"):
        assert metrics[name].value == pytest.approx(0.5)
        assert metrics[name].n == 2


def test_the_interval_is_a_t_interval_of_the_mean_log_ratio() -> None:
    ratios = [0.4, 0.5, 0.7]
    ours = tuple(faster(str(index), by=1 / ratio) for index, ratio in enumerate(ratios))
    dense = tuple(outcome(str(index)) for index in range(3))
    metric = compare_to_dense(quest_arm(outcomes=ours), dense_arm(outcomes=dense))["ttft_ratio"]
    expected = stats.ttest_1samp([math.log(ratio) for ratio in ratios], 0).confidence_interval()
    assert metric.value == pytest.approx((0.4 * 0.5 * 0.7) ** (1 / 3))
    assert metric.ci is not None
    assert (metric.ci.lo, metric.ci.hi) == pytest.approx(
        (math.exp(expected.low), math.exp(expected.high))
    )


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=30))
def test_the_interval_of_the_inverse_ratio_is_the_inverse(logs: list[float]) -> None:
    there, back = t_interval(logs), t_interval([-log for log in logs])
    assert there is not None
    assert back is not None
    assert (there.lo, there.hi) == pytest.approx((1 / back.hi, 1 / back.lo))


def test_one_request_has_a_ratio_and_no_interval() -> None:
    metric = compare_to_dense(
        quest_arm(outcomes=(faster("a", by=4),)), dense_arm(outcomes=(outcome("a"),))
    )["ttft_ratio"]
    assert metric.value == pytest.approx(0.25)
    assert metric.ci is None


def test_no_request_in_common_is_unobservable() -> None:
    metrics = compare_to_dense(
        quest_arm(outcomes=(faster("a", by=2),)), dense_arm(outcomes=(outcome("b"),))
    )
    for name in ("ttft_ratio", "tokens_per_sample_ratio", "macro_score_difference"):
        assert (metrics[name].value, metrics[name].status) == (None, "unobservable")


def test_a_nan_latency_makes_the_ratio_invalid_and_not_smaller_by_one() -> None:
    broken = outcome("r0", arm="quest", token_times_s=(math.nan, math.nan))
    arm = quest_arm(outcomes=(broken, *quest_arm().outcomes[1:]))
    assert compare_to_dense(arm, dense_arm())["ttft_ratio"].status == "invalid"


def test_bytes_read_are_compared_per_decode_step() -> None:
    metrics = compare_to_dense(quest_arm(), dense_arm())
    assert metrics["kv_read_bytes_per_decode_step_ratio"].value == pytest.approx(0.25)
    assert metrics["peak_mem_bytes_hbm_ratio"].value == pytest.approx(0.25)


def test_score_differences_are_paired_and_keep_their_sign() -> None:
    ours = (
        faster("r0", by=2, score=0.0),
        faster("r1", by=2, score=1.0),
        faster("v0", by=2, task="vt", score=0.75),
    )
    dense = (outcome("r0"), outcome("r1"), outcome("v0", task="vt", score=0.5))
    metrics = compare_to_dense(quest_arm(outcomes=ours), dense_arm(outcomes=dense))
    assert metrics["score_difference_niah_single_1"].value == pytest.approx(-0.5)
    assert metrics["score_difference_vt"].value == pytest.approx(0.25)
    assert metrics["macro_score_difference"].value == pytest.approx(-0.125)


def test_score_differences_have_the_interval_of_pairs() -> None:
    ours = tuple(faster(f"r{index}", by=2, score=float(index > 2)) for index in range(20))
    metrics = compare_to_dense(
        quest_arm(outcomes=ours), dense_arm(outcomes=tuple(outcome(f"r{n}") for n in range(20)))
    )
    for name in ("score_difference_niah_single_1", "macro_score_difference"):
        ci = metrics[name].ci
        assert ci is not None
        assert -0.4 < ci.lo < -0.15 < ci.hi < 0.05
