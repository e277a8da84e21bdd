"""Scores of answers: per task with an interval, and the mean over tasks."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean

from pydantic import NonNegativeInt

from harness.metric import Interval, Metric, Quantity
from harness.outcome import ArmResult, Outcome
from harness.schema import Part

SCORE = Quantity(unit="score", direction="higher", source="client")
LEVEL = 0.95


class TaskAccuracy(Part):
    """The mean score of a task, and how many answers held nothing."""

    score: Metric
    num_empty: NonNegativeInt


class Accuracy(Part):
    """The scores of one arm; macro: every task counts the same."""

    tasks: dict[str, TaskAccuracy]
    macro: Metric


def arm_accuracy(arm: ArmResult) -> Accuracy:
    """Scores of an arm by task; answers of a load that is not scored are left out."""
    tasks = accuracy_by_task(arm.outcomes)
    values = [task.score.value for task in tasks.values() if task.score.value is not None]
    macro = fmean(values) if values and len(values) == len(tasks) else None
    return Accuracy(
        tasks=tasks, macro=SCORE.metric(macro, n=len(tasks), aggregation="mean over tasks")
    )


def accuracy_by_task(outcomes: Sequence[Outcome]) -> dict[str, TaskAccuracy]:
    """Scores by task, of the answers that are scored."""
    by_task: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.score is not None:
            by_task.setdefault(outcome.task, []).append(outcome)
    return {task: task_accuracy(ones) for task, ones in sorted(by_task.items())}


def task_accuracy(outcomes: Sequence[Outcome]) -> TaskAccuracy:
    """The mean score of the answers to one task."""
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    mean = fmean(scores) if scores else None
    ci = None if mean is None else wilson(mean, len(scores))
    return TaskAccuracy(
        score=SCORE.metric(mean, n=len(scores), aggregation="mean", ci=ci),
        num_empty=sum(not outcome.answer.strip() for outcome in outcomes),
    )


def wilson(mean: float, n: int) -> Interval | None:
    """Wilson's score interval of a mean of n scores in [0, 1]; never of zero width.

    Exact for scores of 0 and 1. For fractional ones it is too wide rather than too narrow: of all
    scores in [0, 1] with a given mean, those of 0 and 1 vary most.
    """
    if not math.isfinite(mean):
        return None
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    # Rounding may leave the unit interval, or the mean itself, by one in the last place.
    return Interval(
        lo=max(0.0, min(centre - half, mean)),
        hi=min(1.0, max(centre + half, mean)),
        level=LEVEL,
        method="wilson",
    )
