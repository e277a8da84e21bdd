"""Accuracy, paired by request: exact tests, intervals that are never of zero width, and flips."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

import numpy as np
from scipy import stats

from harness.accuracy import wilson
from harness.comparing.counters import Named
from harness.comparing.finding import Finding, FindingClass
from harness.comparing.rule import POWER, holm, sign_flips_p
from harness.record import Sample

MACRO = "accuracy"
# From so many tasks on, whole tasks are flipped; with fewer no p could be small.
LEAST_CLUSTERS = 6
LEVEL = 0.95


@dataclass(frozen=True)
class Scored:
    """The score of an answer in one run or the mean over several; digest: of prompt and answers."""

    task: str
    score: float
    asked: str
    answered: str


@dataclass(frozen=True)
class Pairs:
    """Scores of the same requests by task, base and candidate; same: all answers are equal."""

    by_task: Mapping[str, Sequence[tuple[float, float]]]
    same: bool

    def all(self) -> list[tuple[float, float]]:
        """The pairs of all tasks."""
        return [pair for pairs in self.by_task.values() for pair in pairs]


def scored(samples: Sequence[Sample]) -> dict[str, Scored]:
    """Scored answers by request; several of one request, from several rounds, become their mean."""
    by_uid: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.score is not None:
            by_uid.setdefault(sample.uid, []).append(sample)
    return {
        uid: Scored(
            task=group[0].task,
            score=fmean(one.score or 0.0 for one in group),
            asked=digest(str((group[0].num_prompt_tokens, group[0].references))),
            answered=digest(*sorted({one.answer for one in group})),
        )
        for uid, group in sorted(by_uid.items())
    }


def digest(*texts: str) -> str:
    """A short hash of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def asked_differently(base: Mapping[str, Scored], candidate: Mapping[str, Scored]) -> list[str]:
    """Why the requests are not the same ones; none means that they pair."""
    if base.keys() != candidate.keys():
        return [f"{len(base.keys() ^ candidate.keys())} requests are in one side only"]
    changed = [uid for uid, one in base.items() if one.asked != candidate[uid].asked]
    return [f"another prompt or reference under the same id: {changed[0]}"] if changed else []


def accuracy_findings(
    named: Named,
    base: Mapping[str, Scored],
    candidate: Mapping[str, Scored],
    *,
    alpha: float,
    macro_margin: float,
    task_margin: float,
) -> list[Finding]:
    """The mean over tasks and, of several, each task. The same requests must be in both sides."""
    if not base:
        return []
    pairs = paired(base, candidate)
    families = {MACRO: pairs.by_task}
    if len(pairs.by_task) > 1:
        families |= {f"{MACRO}_{task}": {task: ones} for task, ones in pairs.by_task.items()}
    # A loss, one-sided; all of them are one family.
    p_values = holm(np.array([loss_p(by_task)[0] for by_task in families.values()]))
    return [
        _finding(
            named,
            name,
            Pairs(by_task, pairs.same),
            p=float(p),
            alpha=alpha,
            margin=macro_margin if name == MACRO else task_margin,
        )
        for (name, by_task), p in zip(families.items(), p_values, strict=True)
    ]


def paired(base: Mapping[str, Scored], candidate: Mapping[str, Scored]) -> Pairs:
    """Pairs by task, in the order of the requests."""
    by_task: dict[str, list[tuple[float, float]]] = {}
    for uid, ours in base.items():
        by_task.setdefault(ours.task, []).append((ours.score, candidate[uid].score))
    same = all(ours.answered == candidate[uid].answered for uid, ours in base.items())
    return Pairs(by_task, same)


def loss_p(by_task: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[float, str]:
    """One-sided p of a loss, and the test it is of."""
    pairs = [pair for ones in by_task.values() for pair in ones]
    if all(score in (0, 1) for pair in pairs for score in pair):
        harmful, beneficial = flips(pairs)
        if harmful + beneficial == 0:
            return 1.0, "McNemar, exact"
        tested = stats.binomtest(harmful, harmful + beneficial, 0.5, alternative="greater")
        return float(tested.pvalue), "McNemar, exact"
    if len(by_task) >= LEAST_CLUSTERS:
        losses = [fmean(ours - theirs for ours, theirs in ones) for ones in by_task.values()]
        return flip_p(losses), "sign flip, by task"
    weighted = [(ours - theirs) / len(ones) for ones in by_task.values() for ours, theirs in ones]
    return flip_p(weighted), "sign flip, by request"


def flip_p(losses: Sequence[float]) -> float:
    """One-sided p of the mean of losses under flips of their signs."""
    known = np.array([loss for loss in losses if loss])
    return sign_flips_p(known) if known.size else 1.0


def flips(pairs: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """How many answers became worse, and how many better."""
    return sum(b < a for a, b in pairs), sum(b > a for a, b in pairs)


def interval(by_task: Mapping[str, Sequence[tuple[float, float]]]) -> tuple[float, float]:
    """The 95 % interval of candidate minus base, the mean over tasks; never of zero width."""
    parts = [_task_interval(ones) for ones in by_task.values()]
    centre = fmean(middle for middle, _, _ in parts)
    low = math.sqrt(sum(below**2 for _, below, _ in parts)) / len(parts)
    high = math.sqrt(sum(above**2 for _, _, above in parts)) / len(parts)
    return max(-1.0, centre - low), min(1.0, centre + high)


def _task_interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The difference of a task, and how far the interval goes down and up from it."""
    differences = [theirs - ours for ours, theirs in pairs]
    middle, n = fmean(differences), len(pairs)
    if all(score in (0, 1) for pair in pairs for score in pair):
        return middle, *_newcombe(pairs)
    half = 1.0
    if n > 1:
        spread = math.sqrt(variance(differences) / n)
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * spread
    # So many requests without a change say no more than that changes are this rare.
    rare = 1 - (1 - LEVEL) ** (1 / n)
    return middle, max(half, rare), max(half, rare)


def _newcombe(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Newcombe's tenth method, square-and-add of Wilson intervals with their correlation."""
    n = len(pairs)
    p1, p2 = fmean(theirs for _, theirs in pairs), fmean(ours for ours, _ in pairs)
    one, two = wilson(p1, n), wilson(p2, n)
    assert one is not None
    assert two is not None
    product = p1 * (1 - p1) * p2 * (1 - p2)
    both = fmean(ours * theirs for ours, theirs in pairs)
    phi = (both - p1 * p2) / math.sqrt(product) if product > 0 else 0.0
    down1, up1, down2, up2 = p1 - one.lo, one.hi - p1, p2 - two.lo, two.hi - p2
    low = down1**2 - 2 * phi * down1 * up2 + up2**2
    high = up1**2 - 2 * phi * up1 * down2 + down2**2
    return math.sqrt(max(0.0, low)), math.sqrt(max(0.0, high))


def needed(by_task: Mapping[str, Sequence[tuple[float, float]]], margin: float) -> int | None:
    """Requests with which no loss above the margin could be shown, if there is none."""
    pairs = [pair for ones in by_task.values() for pair in ones]
    spread = variance([theirs - ours for ours, theirs in pairs]) if len(pairs) > 1 else 0.0
    # At least the variance of what may still change at this rate, after so many without a change.
    spread = max(spread, 1 / (len(pairs) + 1))
    if not margin:
        return None
    normal = NormalDist()
    reach = normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(POWER)
    return math.ceil(spread * (reach / margin) ** 2)


def _finding(
    named: Named, name: str, pairs: Pairs, *, p: float, alpha: float, margin: float
) -> Finding:
    by_task = pairs.by_task
    low, high = interval(by_task)
    base = fmean(fmean(ours for ours, _ in ones) for ones in by_task.values())
    candidate = fmean(fmean(theirs for _, theirs in ones) for ones in by_task.values())
    change = candidate - base
    found: FindingClass = "inconclusive"
    if pairs.same:
        found = "unchanged"
    elif p < alpha and high < 0 and -change >= margin / 2:
        found = "regression"
    elif low > -margin:
        found = "non_inferior"
    harmful, beneficial = flips(pairs.all())
    said = "every answer is the same" if pairs.same else f"{harmful} worse, {beneficial} better"
    return Finding(
        cell=named.cell,
        label=named.label,
        metric=name,
        kind="accuracy",
        found=found,
        gated=True,
        unit="score",
        base=base,
        candidate=candidate,
        change=change,
        lower=low,
        upper=high,
        margin=margin,
        p=p,
        n=len(pairs.all()),
        needed=needed(by_task, margin) if found == "inconclusive" else None,
        detail=f"{said}; {loss_p(by_task)[1]}",
    )
