"""Accuracy of two runs over the same requests: what each scored, and findings on the pairs."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.comparing.counters import Named
from harness.comparing.finding import Finding, FindingClass
from harness.paired_scores import Pair, ScoreChange, ScoreRule, accuracy_change
from harness.record import Sample
from harness.tasks.questions import context_of


@dataclass(frozen=True)
class Scored:
    """The score of an answer in one run or the mean over several.

    asked, answered: digests of prompt and answers; context: what the request shares with others
    that were asked about it, None where that is not known.
    """

    task: str
    score: float
    asked: str
    answered: str
    context: str | None = None


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
            asked=_asked(group[0]),
            answered=digest(*sorted({one.answer for one in group})),
            context=context_of(uid, group[0].question),
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
    rule: ScoreRule,
) -> list[Finding]:
    """The mean over tasks and, of several, each task. The same requests must be in both sides."""
    by_task: dict[str, list[Pair]] = {}
    for uid, ours in base.items():
        theirs = candidate[uid]
        pair = Pair(ours.score, theirs.score, theirs.context or ours.context or uid)
        by_task.setdefault(ours.task, []).append(pair)
    same = all(ours.answered == candidate[uid].answered for uid, ours in base.items())
    found = accuracy_change(by_task, rule)
    if found is None:
        return []
    return [
        _finding(named, "accuracy", found.mean, same=same),
        *(
            _finding(named, f"accuracy_{task}", change, same=same)
            for task, change in found.tasks.items()
        ),
    ]


def _asked(sample: Sample) -> str:
    asked = (sample.num_prompt_tokens, sample.references, sample.prompt_sha256)
    return digest(str(asked))


def _finding(named: Named, name: str, change: ScoreChange, *, same: bool) -> Finding:
    found: FindingClass = "unchanged" if same else change.verdict
    flipped = f"{change.num_worse} worse, {change.num_better} better"
    said = "every answer is the same" if same else flipped
    return Finding(
        cell=named.cell,
        label=named.label,
        metric=name,
        kind="accuracy",
        found=found,
        gated=True,
        unit="score",
        base=change.base,
        candidate=change.candidate,
        change=change.change,
        lower=change.lower,
        upper=change.upper,
        margin=change.margin,
        p=change.p,
        n=change.n,
        needed=None if same else change.needed,
        detail=f"{said}; {change.test}",
    )
