"""Scores and their intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from harness.accuracy import arm_accuracy, wilson
from tests.harness.facts import dense_arm, outcome


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_zeros_and_ones_is_the_wilson_interval(counts: tuple[int, int]) -> None:
    num_right, n = counts
    ours, theirs = wilson(num_right / n, n), binomtest(num_right, n).proportion_ci(method="wilson")
    assert ours is not None
    assert (ours.lo, ours.hi) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_an_interval_holds_its_mean_and_has_a_width(mean: float, n: int) -> None:
    interval = wilson(mean, n)
    assert interval is not None
    assert 0 <= interval.lo <= mean <= interval.hi <= 1
    assert interval.hi > interval.lo


def test_all_sixteen_right_is_not_certainty() -> None:
    interval = wilson(1.0, 16)
    assert interval is not None
    assert (interval.lo, interval.hi) == pytest.approx((0.806, 1.0), abs=5e-4)


def test_every_task_counts_the_same_in_the_mean_over_tasks() -> None:
    outcomes = (
        *(outcome(f"a{index}", task="a", score=1.0) for index in range(3)),
        outcome("b0", task="b", score=0.25),
        outcome("b1", task="b", score=0.25, answer=" \n"),
    )
    accuracy = arm_accuracy(dense_arm(outcomes=outcomes))
    assert accuracy.macro.value == pytest.approx((1 + 0.25) / 2)
    assert accuracy.macro.n == 2
    assert accuracy.tasks["b"].score.n == 2
    assert {name: task.num_empty for name, task in accuracy.tasks.items()} == {"a": 0, "b": 1}


def test_a_load_that_is_not_scored_has_no_accuracy() -> None:
    accuracy = arm_accuracy(dense_arm(outcomes=(outcome("a", score=None),)))
    assert not accuracy.tasks
    assert (accuracy.macro.value, accuracy.macro.status) == (None, "unobservable")
