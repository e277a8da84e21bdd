"""Accuracy of two sides over the same requests."""

import random
from collections.abc import Sequence

import pytest

from harness.comparing.accuracy import (
    Scored,
    accuracy_findings,
    asked_differently,
    digest,
    scored,
)
from harness.comparing.counters import Named
from harness.comparing.finding import Finding
from harness.paired_scores import ScoreRule
from harness.record import Sample
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
        ScoreRule(alpha=0.05, margin=margin, task_margin=margin),
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


def test_questions_about_one_context_are_one_observation() -> None:
    def asked(score: float) -> dict[str, Scored]:
        samples = [
            Sample(
                uid=f"r{context}-question-{question}", task="t", arm="quest", question=question,
                answer=str(score), references=("a",), score=score, num_prompt_tokens=9,
                num_output_tokens=1, finish="stop", ttft_ms=None, tpot_ms=None,
            )
            for context in range(6)
            for question in (1, 2)
        ]  # fmt: skip
        return scored(samples)

    base, candidate = asked(1.0), asked(0.0)
    assert len({one.context for one in base.values()}) == 6
    rule = ScoreRule(alpha=0.05, margin=0.02, task_margin=0.02)
    (finding,) = accuracy_findings(NAMED, base, candidate, rule)
    assert finding.detail.endswith("sign flip, by context")
    assert finding.p == pytest.approx(0.5**6)
