"""Accuracy of two sides over the same requests."""

import random
from collections.abc import Sequence

import pytest
from scipy import stats

from harness.comparing.accuracy import (
    Scored,
    accuracy_findings,
    asked_differently,
    digest,
    flip_p,
    interval,
    loss_p,
    scored,
)
from harness.comparing.counters import Named
from harness.comparing.finding import Finding
from tests.comparing.made import record

NAMED = Named("cell", "label")


def side(scores: Sequence[float], *, tasks: int = 1) -> dict[str, Scored]:
    """Answers with these scores, over tasks in turn."""
    return {
        f"r{number}": Scored(
            task=f"task{number % tasks}", score=score, asked="q", answered=digest(str(score))
        )
        for number, score in enumerate(scores)
    }


def compared(
    base: Sequence[float], candidate: Sequence[float], *, tasks: int = 1, margin: float = 0.02
) -> list[Finding]:
    return accuracy_findings(
        NAMED,
        side(base, tasks=tasks),
        side(candidate, tasks=tasks),
        alpha=0.05,
        macro_margin=margin,
        task_margin=margin,
    )


def test_the_same_answers_are_unchanged_however_few() -> None:
    (finding,) = compared([1, 0, 1], [1, 0, 1])
    assert finding.found == "unchanged"
    assert finding.lower is not None
    assert finding.upper is not None
    assert finding.lower < 0 < finding.upper


def test_a_clear_loss_is_a_regression_with_its_flips() -> None:
    (finding,) = compared([1] * 100, [1] * 80 + [0] * 20)
    assert finding.found == "regression"
    assert finding.change == pytest.approx(-0.2)
    assert finding.detail.startswith("20 worse, 0 better")
    assert finding.p == pytest.approx(0.5**20)


def test_flips_both_ways_are_no_loss_and_no_proof_of_none() -> None:
    base = [1] * 50 + [0] * 50
    candidate = [1] * 45 + [0] * 5 + [1] * 5 + [0] * 45
    (finding,) = compared(base, candidate)
    assert finding.found == "inconclusive"
    assert finding.detail.startswith("5 worse, 5 better")
    assert finding.needed is not None
    assert finding.needed > 100


def test_many_requests_with_hardly_a_flip_are_not_inferior() -> None:
    base = [1, 0] * 2500
    (finding,) = compared(base, [*base[:-1], 1])
    assert finding.found == "non_inferior"


def test_a_loss_too_small_to_matter_is_no_regression() -> None:
    base = [1] * 100_000
    candidate = [1] * 99_600 + [0] * 400
    (finding,) = compared(base, candidate)
    assert finding.p is not None
    assert finding.p < 1e-6
    assert finding.found == "non_inferior"


def test_the_test_of_right_and_wrong_is_mcnemars() -> None:
    pairs = [(1.0, 0.0)] * 9 + [(0.0, 1.0)] * 2 + [(1.0, 1.0)] * 30
    expected = stats.binomtest(9, 11, 0.5, alternative="greater").pvalue
    assert loss_p({"t": pairs}) == (pytest.approx(expected), "McNemar, exact")


def test_scores_in_between_are_flipped_by_request_or_by_task() -> None:
    few = {f"t{number}": [(0.5, 0.25)] * 4 for number in range(5)}
    many = {f"t{number}": [(0.5, 0.25)] * 4 for number in range(6)}
    assert loss_p(few)[1] == "sign flip, by request"
    p, name = loss_p(many)
    assert (p, name) == (pytest.approx(1 / 2**6), "sign flip, by task")


def test_a_sign_flip_of_no_change_shows_nothing() -> None:
    assert flip_p([0.0, 0.0]) == 1.0
    assert flip_p([0.1, -0.1, 0.1, -0.1]) > 0.5


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num", [1, 2, 10])
def test_an_interval_is_never_of_zero_width(score: float, num: int) -> None:
    low, high = interval({"t": [(score, score)] * num})
    assert low < 0 < high


def test_an_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng, held, num = random.Random(3), 0, 400
    for _ in range(num):
        pairs = []
        for _ in range(60):
            base = rng.random() < 0.8
            kept = rng.random() < 0.85
            pairs.append((float(base), float(base if kept else not base)))
        # Of 80 % right, 15 % turn wrong; of 20 % wrong, 15 % turn right.
        low, high = interval({"t": pairs})
        held += low <= 0.15 * (0.2 - 0.8) <= high
    assert held / num >= 0.93


def test_no_loss_is_seldom_called_one() -> None:
    rng, alarms, num = random.Random(5), 0, 300
    for _ in range(num):
        base = [float(rng.random() < 0.7) for _ in range(60)]
        candidate = [score if rng.random() < 0.8 else float(rng.random() < 0.7) for score in base]
        (finding,) = compared(base, candidate)
        alarms += finding.found == "regression"
    assert alarms / num <= 0.05


def test_several_tasks_are_one_family_and_their_mean_counts_each_alike() -> None:
    findings = compared([1.0] * 40, [1.0, 0.0] * 20, tasks=2)
    assert [one.metric for one in findings] == ["accuracy", "accuracy_task0", "accuracy_task1"]
    assert [one.found for one in findings] == ["regression", "inconclusive", "regression"]
    assert findings[0].change == pytest.approx(-0.5)


def test_a_request_asked_otherwise_does_not_pair() -> None:
    ours, theirs = side([1, 1]), side([1, 1])
    assert asked_differently(ours, theirs) == []
    theirs["r1"] = Scored(task="task0", score=1, asked="other", answered="a")
    assert asked_differently(ours, theirs) == ["another prompt or reference under the same id: r1"]
    assert asked_differently(ours, side([1])) == ["1 requests are in one side only"]


def test_several_rounds_of_a_request_are_one_answer() -> None:
    samples = [one for one in record().samples if one.arm == "quest"]
    once, twice = scored(samples), scored([*samples, *samples])
    assert once == twice
    other = [one.model_copy(update={"score": 0.0, "answer": "no"}) for one in samples]
    assert {one.score for one in scored([*samples, *other]).values()} == {0.5}


def test_one_of_several_tasks_must_be_clearer_than_one_alone() -> None:
    lost = [1.0] * 15 + [0.0] * 5
    (alone,) = compared([1.0] * 20, lost)
    assert alone.found == "regression"
    mixed = [score for one in lost for score in (one, 1.0)]
    _, first, second = compared([1.0] * 40, mixed, tasks=2)
    assert first.p == pytest.approx(3 * 0.5**5)
    assert [first.found, second.found] == ["inconclusive", "inconclusive"]
