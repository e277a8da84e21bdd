"""Scores of the same requests on two sides: tests, intervals, and how many requests would tell."""

import math
import random
from collections.abc import Iterable, Sequence

import pytest
from scipy import stats

from harness.paired_scores import (
    Pair,
    ScoreChange,
    ScoreRule,
    accuracy_change,
    flip_p,
    interval,
    loss_p,
    needed,
)

RULE = ScoreRule(alpha=0.05, margin=0.02, task_margin=0.02)


def alone(scores: Iterable[tuple[float, float]], name: str = "r") -> list[Pair]:
    """Requests that share no context."""
    return [Pair(base, ours, f"{name}{number}") for number, (base, ours) in enumerate(scores)]


def asked(scores: Sequence[tuple[float, float]], times: int) -> list[Pair]:
    """The same, each context asked about so often, with the same outcome each time."""
    return [pair for pair in alone(scores) for _ in range(times)]


def changed(pairs: Sequence[Pair]) -> ScoreChange:
    found = accuracy_change({"task": pairs}, RULE)
    assert found is not None
    return found.mean


def test_the_test_of_right_and_wrong_is_mcnemars() -> None:
    pairs = alone([(1.0, 0.0)] * 9 + [(0.0, 1.0)] * 2 + [(1.0, 1.0)] * 30)
    expected = stats.binomtest(9, 11, 0.5, alternative="greater").pvalue
    assert loss_p({"t": pairs}) == (pytest.approx(expected), "McNemar, exact")


def test_scores_in_between_are_flipped_by_request_or_by_task() -> None:
    few = {f"t{task}": alone([(0.5, 0.25)] * 4, f"{task}-") for task in range(5)}
    many = {f"t{task}": alone([(0.5, 0.25)] * 4, f"{task}-") for task in range(6)}
    assert loss_p(few)[1] == "sign flip, by request"
    p, name = loss_p(many)
    assert (p, name) == (pytest.approx(1 / 2**6), "sign flip, by task")


def test_a_context_has_one_sign_to_flip_however_often_it_is_asked_about() -> None:
    lost = [(1.0, 0.0)] * 6
    p, name = loss_p({"t": asked(lost, 10)})
    assert name == "sign flip, by context"
    assert p == pytest.approx(1 / 2**6)
    assert p == pytest.approx(loss_p({"t": alone(lost)})[0])


def test_a_sign_flip_of_no_change_shows_nothing() -> None:
    assert flip_p([0.0, 0.0]) == 1.0
    assert flip_p([0.1, -0.1, 0.1, -0.1]) > 0.5


def test_one_change_alone_has_two_signs() -> None:
    assert [flip_p([0.25]), flip_p([-0.25]), flip_p([0.25, 0.0])] == [0.5, 1.0, 0.5]
    assert flip_p([0.25, 0.25]) == pytest.approx(0.25)


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num", [1, 2, 10])
@pytest.mark.parametrize("times", [1, 3])
def test_an_interval_is_never_of_zero_width(score: float, num: int, times: int) -> None:
    low, high = interval({"t": asked([(score, score)] * num, times)})
    assert low < 0 < high


def test_an_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng, held, num = random.Random(3), 0, 400
    for _ in range(num):
        scores = []
        for _ in range(60):
            base = rng.random() < 0.8
            kept = rng.random() < 0.85
            scores.append((float(base), float(base if kept else not base)))
        # Of 80 % right, 15 % turn wrong; of 20 % wrong, 15 % turn right.
        low, high = interval({"t": alone(scores)})
        held += low <= 0.15 * (0.2 - 0.8) <= high
    assert held / num >= 0.93


def test_questions_about_one_context_make_no_interval_narrower() -> None:
    rng = random.Random(4)
    scores = [(rng.random(), rng.random()) for _ in range(30)]
    once, often = interval({"t": alone(scores)}), interval({"t": asked(scores, 8)})
    assert often == pytest.approx(once)


def test_an_interval_over_contexts_holds_the_truth_where_one_over_requests_does_not() -> None:
    rng, held, naive, num = random.Random(5), 0, 0, 300
    for _ in range(num):
        # A context is lost as a whole, a fifth of the time.
        pairs = asked([(1.0, 0.0 if rng.random() < 0.2 else 1.0) for _ in range(40)], 6)
        low, high = interval({"t": pairs})
        held += low <= -0.2 <= high
        apart = [one._replace(context=str(number)) for number, one in enumerate(pairs)]
        low, high = interval({"t": apart})
        naive += low <= -0.2 <= high
    assert held / num >= 0.92
    assert naive / num <= 0.75, "the contexts did not matter: nothing was shown"


def test_tasks_that_share_their_contexts_are_no_strata() -> None:
    rng = random.Random(6)
    scores = [(rng.random(), rng.random()) for _ in range(30)]
    shared = {task: alone(scores) for task in ("a", "b", "c")}
    own = {task: alone(scores, task) for task in ("a", "b", "c")}
    assert interval(shared) == pytest.approx(interval({"a": alone(scores)}))
    ours, theirs = interval(own), interval(shared)
    assert ours[1] - ours[0] < 0.7 * (theirs[1] - theirs[0])


def test_a_loss_beyond_the_margin_is_a_regression_and_settled() -> None:
    change = changed(alone([(1.0, 0.0)] * 20 + [(1.0, 1.0)] * 80))
    assert (change.verdict, change.needed) == ("regression", None)
    assert (change.num_worse, change.num_better, change.n, change.num_contexts) == (20, 0, 100, 100)
    assert change.lower < change.change < change.upper < 0


def test_the_requests_that_are_needed_settle_it() -> None:
    for scores in ([(1.0, 1.0)] * 9 + [(1.0, 0.0)], [(1.0, 1.0)] * 8 + [(1.0, 0.0), (0.0, 1.0)]):
        few = changed(alone(scores * 2))
        assert few.verdict == "inconclusive"
        assert few.needed is not None
        many = changed(alone(scores * math.ceil(few.needed / len(scores))))
        assert many.verdict != "inconclusive"
        half = changed(alone(scores * (few.needed // 4 // len(scores))))
        assert half.verdict == "inconclusive"


def test_more_requests_are_needed_where_they_share_contexts() -> None:
    scores = [(1.0, 1.0)] * 18 + [(1.0, 0.0), (0.0, 1.0)]
    apart, together = needed({"t": alone(scores)}, 0.02), needed({"t": asked(scores, 5)}, 0.02)
    assert apart is not None
    assert together is not None
    assert together == pytest.approx(5 * apart, rel=0.01)


def test_no_score_is_no_change() -> None:
    assert accuracy_change({}, RULE) is None
