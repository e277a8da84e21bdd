"""Readings: a number as the report shows it, with its interval and how it was measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from harness.accuracy import wilson
from harness.metric import Interval, Metric
from harness.paired_scores import ScoreChange
from harness.record import Arm, RunRecord

SOURCES = {"client": "seen by the client", "accounting": "counted on real tensors"}
BY_DEFINITION = "1 by definition: it is the baseline"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A value, the interval drawn around it if there is one, and in words where both are from."""

    value: float
    lo: float | None = None
    hi: float | None = None
    n: int
    how: str


Read = Callable[[RunRecord, str], Reading | None]


def reading(metric: Metric | None, *, simulated: bool = False) -> Reading | None:
    """The reading of a metric; None where it has no value."""
    if metric is None or metric.value is None:
        return None
    how = f"{metric.aggregation}, {'simulated' if simulated else SOURCES[metric.source]}"
    if metric.status == "insufficient_n":
        how += ", too few observations for it"
    return _within(metric.value, metric.ci, metric.n, how)


def _within(value: float, ci: Interval | None, n: int, how: str) -> Reading:
    if ci is None:
        return Reading(value=value, n=n, how=how)
    interval = f"{how}; {100 * ci.level:g} % {ci.method}"
    return Reading(value=value, lo=ci.lo, hi=ci.hi, n=n, how=interval)


def accuracy(arm: Arm) -> Reading | None:
    """The mean over tasks, with Wilson's interval over their answers.

    As many answers count as the smallest task has, times the tasks: then the interval of a mean of
    strata is no narrower than it should be.
    """
    scores = [task.score for task in arm.accuracy.tasks.values()]
    macro = arm.accuracy.macro.value
    num = len(scores) * min((score.n for score in scores), default=0)
    if macro is None or num == 0:
        return None
    how = "mean score" if len(scores) == 1 else f"mean over {len(scores)} tasks"
    return _within(macro, wilson(macro, num), num, f"{how}, {SOURCES['client']}")


def change_reading(change: ScoreChange) -> Reading:
    """A change of scores with its interval, and in words what it says."""
    how = (
        f"paired by request, {change.num_worse} worse, {change.num_better} better; "
        f"{change.verdict.replace('_', '-')} at a margin of {change.margin:g} ({change.test}, "
        f"p {change.p:.2g}); 95 % interval"
    )
    return Reading(value=change.change, lo=change.lower, hi=change.upper, n=change.n, how=how)


def over_trials(readings: Sequence[Reading | None]) -> Reading | None:
    """One reading of several trials: the median with the range; of one trial, itself.

    Where trials have intervals, the range spans them: repeats make no interval narrower.
    """
    known = sorted((one for one in readings if one is not None), key=lambda one: one.value)
    if not known:
        return None
    low, chosen, high = known[0].value, known[len(known) // 2], known[-1].value
    if low == high:
        # Repeats of counters and of answers to the same requests add no information.
        return chosen
    return Reading(
        value=median(one.value for one in known),
        lo=min(one.value if one.lo is None else one.lo for one in known),
        hi=max(one.value if one.hi is None else one.hi for one in known),
        n=chosen.n,
        how=f"median of {len(known)} trials, range of them and their intervals; each: {chosen.how}",
    )
