"""The rule for latencies: what it calls a change, and how often it is wrong."""

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.compare_rule import NUM_TRIALS, VirtualMachine, shares_found
from harness.comparing.interleaving import judge, log_ratios, turns
from harness.comparing.options import parse
from harness.comparing.rule import (
    Decision,
    Rule,
    decide,
    noise_of,
    rounds_needed,
    sign_flip_p,
)
from harness.exact_tests import holm

SHIPPED = parse([]).rule
FLOOR = float(np.log1p(SHIPPED.floor))


def decided(*rows: list[float], rule: Rule = SHIPPED) -> Decision:
    return decide(np.array(rows), np.full(len(rows), FLOOR), rule)


def wobbling(middle: float, by: float = 0.01, num: int = 8) -> list[float]:
    """Rounds that lie around a log-ratio."""
    return [middle + by * (-1) ** index for index in range(num)]


@pytest.mark.slow
def test_a_false_alarm_is_rare_and_a_slowdown_is_found() -> None:
    """5 % noise, 2 % drift, 8 rounds: at most 1 % false alarms a metric, and 80 % of +15 %."""
    for worse in ((0.0,), (0.0, 0.0)):
        assert (shares_found(VirtualMachine(0.05, 0.02, worse), SHIPPED) <= 0.01).all()
    for worse in ((0.15,), (0.15, 0.15), (0.15, 0.0)):
        assert shares_found(VirtualMachine(0.05, 0.02, worse), SHIPPED)[0] >= 0.80
    # The metric beside a slow one is no worse for it.
    assert shares_found(VirtualMachine(0.05, 0.02, (0.15, 0.0)), SHIPPED)[1] <= 0.01


def test_a_change_that_the_margin_allows_is_no_regression() -> None:
    machine = VirtualMachine(0.05, 0.02, (SHIPPED.floor,), num_trials=NUM_TRIALS // 4)
    assert shares_found(machine, SHIPPED)[0] <= SHIPPED.alpha / 2


def test_turns_cancel_a_steady_drift() -> None:
    clock = {"now": 0.0}

    def measure(_: str) -> np.ndarray:
        clock["now"] += 0.1
        return np.exp(np.array([clock["now"]]))

    assert list(turns(3)) == [
        ("base", "candidate"),
        ("candidate", "base"),
        ("base", "candidate"),
    ]
    logs_MN = log_ratios(measure, 8)
    assert np.abs(logs_MN).min() > 0.05, "nothing drifted: the test has shown nothing"
    assert logs_MN.mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("middle", "by", "found"),
    [
        (0.20, 0.01, "regression"),
        (-0.20, 0.01, "improvement"),
        (0.0, 0.01, "unchanged"),
        (0.01, 0.01, "unchanged"),
        (FLOOR, 0.01, "inconclusive"),
        (0.20, 0.50, "inconclusive"),
    ],
)
def test_each_class_has_its_rounds(middle: float, by: float, found: str) -> None:
    assert decided(wobbling(middle, by)).class_M.tolist() == [found]


def test_identical_rounds_decide_without_a_division_by_zero() -> None:
    assert decided([0.0] * 8, [0.1] * 8).class_M.tolist() == ["unchanged", "regression"]


def test_five_rounds_decide_nothing_however_clear_they_are() -> None:
    assert decided(wobbling(1.0, num=5)).class_M.tolist() == ["insufficient_n"]
    assert decided(wobbling(1.0, num=6)).class_M.tolist() == ["regression"]


def test_a_round_without_a_value_is_left_out_not_averaged_in() -> None:
    whole, holed = wobbling(0.2, num=6), [*wobbling(0.2, num=6), math.nan, math.nan]
    first, second = decided(whole), decided(holed)
    assert second.n_M.tolist() == [6]
    assert second.mean_M == pytest.approx(first.mean_M)
    assert second.sd_M == pytest.approx(first.sd_M)
    assert second.p_M == pytest.approx(first.p_M)


def test_the_p_of_one_metric_is_that_of_a_t_test_against_the_margin() -> None:
    logs = wobbling(0.04, 0.02)
    expected = stats.ttest_1samp(logs, FLOOR, alternative="greater").pvalue
    assert decided(logs).p_M == pytest.approx([expected])
    low, high = stats.ttest_1samp(logs, 0).confidence_interval(1 - 2 * SHIPPED.alpha)
    assert (decided(logs).lower_M[0], decided(logs).upper_M[0]) == pytest.approx((low, high))


def test_the_interval_of_one_of_two_is_wider_than_of_one_alone() -> None:
    logs = wobbling(0.04, 0.02)
    low, high = stats.ttest_1samp(logs, 0).confidence_interval(1 - SHIPPED.alpha)
    both = decided(logs, wobbling(0.0))
    assert (both.lower_M[0], both.upper_M[0]) == pytest.approx((low, high))


def test_holm_steps_down_and_never_up() -> None:
    # The example of Holm's procedure that textbooks use: .01 .04 .03 .005 at four hypotheses.
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1.0, 1.0])


def test_one_of_two_metrics_must_be_clearer_than_one_alone() -> None:
    # Its p alone is between alpha / 2 and alpha.
    logs = wobbling(0.0545, 0.028)
    assert SHIPPED.alpha / 2 < decided(logs).p_M[0] < SHIPPED.alpha
    assert decided(logs).class_M.tolist() == ["regression"]
    assert decided(logs, wobbling(0.0)).class_M.tolist() == ["inconclusive", "unchanged"]


def test_a_regression_that_does_not_repeat_is_only_suspicious() -> None:
    calls = {"base": 0, "candidate": 0}

    def measure(side: str) -> np.ndarray:
        calls[side] += 1
        late = calls[side] > SHIPPED.rounds
        return np.array([1.3 if side == "candidate" and not late else 1.0])

    judged = judge(measure, np.array([math.nan]), SHIPPED)
    assert judged.decision.class_M.tolist() == ["suspicious"]
    assert calls == {"base": 2 * SHIPPED.rounds, "candidate": 2 * SHIPPED.rounds}


def test_noise_widens_the_margin_and_never_narrows_it() -> None:
    quiet, loud = np.array([0.001]), np.array([0.2])
    assert SHIPPED.margin_M(quiet) == pytest.approx([FLOOR])
    assert SHIPPED.margin_M(np.array([math.nan])) == pytest.approx([FLOOR])
    assert SHIPPED.margin_M(loud) == pytest.approx([math.log(1.2)])


def test_noise_is_what_rounds_of_one_build_show() -> None:
    biased = np.full((1, 8), 0.05)
    assert noise_of(biased) == pytest.approx([math.expm1(0.05)])
    spread = np.array([wobbling(0.0, 0.1)])
    assert noise_of(spread) == pytest.approx([math.expm1(0.1 * math.sqrt(8 / 7) / math.sqrt(8))])
    assert np.isnan(noise_of(spread[:, :5])).all()


def test_the_sign_flip_agrees_where_there_is_no_doubt() -> None:
    clear = sign_flip_p(np.array(wobbling(0.2)), FLOOR)
    assert clear == pytest.approx(1 / 2**8)
    nothing = sign_flip_p(np.array(wobbling(0.0)), FLOOR)
    assert nothing is not None
    assert nothing > 0.9
    assert sign_flip_p(np.array([0.2] * 5), FLOOR) is None


def test_more_rounds_are_asked_for_the_nearer_the_margin() -> None:
    near = rounds_needed(FLOOR + 0.02, 0.05, FLOOR, SHIPPED.alpha)
    far = rounds_needed(FLOOR + 0.10, 0.05, FLOOR, SHIPPED.alpha)
    assert near is not None
    assert far is not None
    assert 6 <= far < near
    assert rounds_needed(FLOOR, 0.05, FLOOR, SHIPPED.alpha) is None


def test_what_is_said_to_be_found_is_found_four_times_in_five() -> None:
    rule = Rule(alpha=0.05, floor=0.03, noise_factor=0, rounds=8, confirm=False)
    rng = np.random.default_rng(0)
    middle, spread = 0.0, 0.05
    logs_TMN = middle + spread * rng.standard_normal((2000, 1, 8))
    detectable = decide(logs_TMN, np.array([FLOOR]), rule).detectable_M.mean()
    found = decide(logs_TMN + detectable, np.array([FLOOR]), rule).class_M == "regression"
    assert 0.7 < found.mean() < 0.9
