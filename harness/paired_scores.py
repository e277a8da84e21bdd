"""Scores of the same requests on two sides: difference, exact test, flips, and a verdict.

Requests about one context are no independent observations: what is drawn is the context, so
variances and tests are over contexts. Where each request has its own, that changes nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Literal, NamedTuple

import numpy as np
from pydantic import NonNegativeInt
from scipy import stats

from harness.accuracy import LEVEL, wilson
from harness.exact_tests import POWER, holm, sign_flips_p
from harness.schema import Part

# From so many tasks on, whole tasks are flipped; with fewer no p could be small.
LEAST_TASKS = 6
NORMAL = NormalDist()

ScoreVerdict = Literal["regression", "non_inferior", "inconclusive"]


class Pair(NamedTuple):
    """The scores of one request; context: what it was asked about, its own unless others share."""

    base: float
    candidate: float
    context: str

    @property
    def change(self) -> float:
        """Candidate minus base."""
        return self.candidate - self.base


ByTask = Mapping[str, Sequence[Pair]]


@dataclass(frozen=True, kw_only=True)
class ScoreRule:
    """When a change of scores counts. alpha: one-sided, over all tasks and their mean together.

    margin, task_margin: the largest loss that is accepted, of the mean over tasks and of a task.
    """

    alpha: float
    margin: float
    task_margin: float


class ScoreChange(Part):
    """How scores changed from base to candidate, over the requests that both answered.

    lower, upper: of the 95 % interval of the change; num_worse, num_better: answers that lost and
    that won; p: one-sided, of a loss, after Holm; needed: with so many requests a change like this
    one would no longer be inconclusive, None where it is not, or where no number would do.
    """

    base: float
    candidate: float
    change: float
    lower: float
    upper: float
    num_worse: NonNegativeInt
    num_better: NonNegativeInt
    n: NonNegativeInt
    num_contexts: NonNegativeInt
    test: str
    p: float
    margin: float
    verdict: ScoreVerdict
    needed: NonNegativeInt | None


class AccuracyChange(Part):
    """How scores changed, as a mean over tasks; tasks: each of them, where there are several."""

    mean: ScoreChange
    tasks: dict[str, ScoreChange]


def accuracy_change(by_task: ByTask, rule: ScoreRule) -> AccuracyChange | None:
    """The mean over tasks and, of several, each task: one family of tests. None without scores."""
    if not by_task:
        return None
    single = {task: {task: pairs} for task, pairs in by_task.items()} if len(by_task) > 1 else {}
    families: list[ByTask] = [by_task, *single.values()]
    tested = [loss_p(pairs) for pairs in families]
    p_values = holm(np.array([p for p, _ in tested])).tolist()
    margins = [rule.margin] + [rule.task_margin] * len(single)
    mean, *tasks = (
        _change(pairs, rule.alpha, margin, p=p, test=test)
        for pairs, margin, p, (_, test) in zip(families, margins, p_values, tested, strict=True)
    )
    return AccuracyChange(mean=mean, tasks=dict(zip(single, tasks, strict=True)))


def loss_p(by_task: ByTask) -> tuple[float, str]:
    """One-sided p of a loss, and the test it is of."""
    pairs = all_pairs(by_task)
    if is_grouped(pairs):
        return _flip_contexts(by_task), "sign flip, by context"
    if is_binary(pairs):
        worse, better = flips(pairs)
        if worse + better == 0:
            return 1.0, "McNemar, exact"
        tested = stats.binomtest(worse, worse + better, 0.5, alternative="greater")
        return float(tested.pvalue), "McNemar, exact"
    if len(by_task) >= LEAST_TASKS:
        losses = [-fmean(one.change for one in ones) for ones in by_task.values()]
        return flip_p(losses), "sign flip, by task"
    return _flip_contexts(by_task), "sign flip, by request"


def flip_p(losses: Sequence[float]) -> float:
    """One-sided p of the mean of losses under flips of their signs."""
    known = np.array([loss for loss in losses if loss])
    return sign_flips_p(known) if known.size else 1.0


def flips(pairs: Sequence[Pair]) -> tuple[int, int]:
    """How many answers became worse, and how many better."""
    return sum(one.change < 0 for one in pairs), sum(one.change > 0 for one in pairs)


def interval(by_task: ByTask) -> tuple[float, float]:
    """The 95 % interval of candidate minus base, the mean over tasks; never of zero width."""
    pairs = all_pairs(by_task)
    own = {task: {one.context for one in ones} for task, ones in by_task.items()}
    if sum(map(len, own.values())) > len({one.context for one in pairs}):
        # Tasks that share contexts are no strata.
        parts = [_by_context(by_task)]
    else:
        parts = [_task_interval({task: ones}) for task, ones in by_task.items()]
    centre = mean_change(by_task)
    low = math.sqrt(sum(below**2 for below, _ in parts)) / len(parts)
    high = math.sqrt(sum(above**2 for _, above in parts)) / len(parts)
    return max(-1.0, centre - low), min(1.0, centre + high)


def mean_change(by_task: ByTask) -> float:
    """Candidate minus base, every task counted alike."""
    return fmean(fmean(one.change for one in ones) for ones in by_task.values())


def all_pairs(by_task: ByTask) -> list[Pair]:
    """The pairs of all tasks."""
    return [pair for pairs in by_task.values() for pair in pairs]


def is_binary(pairs: Sequence[Pair]) -> bool:
    """Whether every answer is right or wrong."""
    return all(score in (0, 1) for pair in pairs for score in (pair.base, pair.candidate))


def is_grouped(pairs: Sequence[Pair]) -> bool:
    """Whether requests share contexts."""
    return len({one.context for one in pairs}) < len(pairs)


def needed(by_task: ByTask, margin: float) -> int | None:
    """Requests with which a change like this one is a regression or is not inferior."""
    pairs, change = all_pairs(by_task), mean_change(by_task)
    num_contexts = len({one.context for one in pairs})
    # At least that of what may still change at this rate, after so many without a change.
    rare = 1 / (num_contexts * (num_contexts + 1))
    spread = len(pairs) * max(_variance(by_task), rare)
    distances = [margin + change] if margin + change > 0 else []
    distances += [-change] if change < 0 and -change >= margin / 2 else []
    if not distances:
        return None
    reach = NORMAL.inv_cdf((1 + LEVEL) / 2) + NORMAL.inv_cdf(POWER)
    return max(len(pairs) + 1, math.ceil(spread * (reach / max(distances)) ** 2))


def _change(by_task: ByTask, alpha: float, margin: float, *, p: float, test: str) -> ScoreChange:
    pairs, change = all_pairs(by_task), mean_change(by_task)
    low, high = interval(by_task)
    worse, better = flips(pairs)
    verdict: ScoreVerdict = "inconclusive"
    if p < alpha and high < 0 and -change >= margin / 2:
        verdict = "regression"
    elif low > -margin:
        verdict = "non_inferior"
    return ScoreChange(
        base=fmean(fmean(one.base for one in ones) for ones in by_task.values()),
        candidate=fmean(fmean(one.candidate for one in ones) for ones in by_task.values()),
        change=change,
        lower=low,
        upper=high,
        num_worse=worse,
        num_better=better,
        n=len(pairs),
        num_contexts=len({one.context for one in pairs}),
        test=test,
        p=p,
        margin=margin,
        verdict=verdict,
        needed=needed(by_task, margin) if verdict == "inconclusive" else None,
    )


def _flip_contexts(by_task: ByTask) -> float:
    """Each context, with all that was asked about it, has one sign to flip."""
    losses: dict[str, float] = {}
    for ones in by_task.values():
        for one in ones:
            losses[one.context] = losses.get(one.context, 0.0) - one.change / len(ones)
    return flip_p(list(losses.values()))


def _variance(by_task: ByTask) -> float:
    """Of the mean change, over contexts; what is asked about one adds up before it is squared."""
    sums: dict[str, float] = {}
    for ones in by_task.values():
        middle = fmean(one.change for one in ones)
        for one in ones:
            off = (one.change - middle) / (len(ones) * len(by_task))
            sums[one.context] = sums.get(one.context, 0.0) + off
    num = len(sums)
    return num / (num - 1) * sum(off**2 for off in sums.values()) if num > 1 else 0.0


def _task_interval(by_task: ByTask) -> tuple[float, float]:
    """How far the interval of one task goes down and up from its change."""
    pairs = all_pairs(by_task)
    if is_binary(pairs) and not is_grouped(pairs):
        return _newcombe(pairs)
    return _by_context(by_task)


def _by_context(by_task: ByTask) -> tuple[float, float]:
    """Student's t over contexts, both ways alike."""
    num, half = len({one.context for one in all_pairs(by_task)}), 1.0
    if num > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, num - 1)) * math.sqrt(_variance(by_task))
    # So many contexts without a change say no more than that changes are this rare.
    half = max(half, 1 - (1 - LEVEL) ** (1 / num))
    return half, half


def _newcombe(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Newcombe's tenth method, square-and-add of Wilson intervals with their correlation."""
    n = len(pairs)
    p1, p2 = fmean(one.candidate for one in pairs), fmean(one.base for one in pairs)
    one, two = wilson(p1, n), wilson(p2, n)
    assert one is not None
    assert two is not None
    product = p1 * (1 - p1) * p2 * (1 - p2)
    both = fmean(pair.base * pair.candidate for pair in pairs)
    phi = (both - p1 * p2) / math.sqrt(product) if product > 0 else 0.0
    down1, up1, down2, up2 = p1 - one.lo, one.hi - p1, p2 - two.lo, two.hi - p2
    low = down1**2 - 2 * phi * down1 * up2 + up2**2
    high = up1**2 - 2 * phi * up1 * down2 + down2**2
    return math.sqrt(max(0.0, low)), math.sqrt(max(0.0, high))
