"""Rounds of both sides in turns, ABBA, and the decision over them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.comparing.rule import Decision, Rule, confirmed, decide
from harness.exact_tests import Floats

Side = Literal["base", "candidate"]
# One run of a side: what it took, by metric, float64 [..., M]; NaN where it has no value.
Measure = Callable[[Side], Floats]


@dataclass(frozen=True)
class Judged:
    """The decision, and the log-ratios [..., M, N] of the first and of the confirming rounds."""

    decision: Decision
    logs_MN: Floats
    confirming_MN: Floats | None


def turns(num_rounds: int) -> Iterator[tuple[Side, Side]]:
    """Which side goes first: base, candidate, candidate, base, and so on."""
    for number in range(num_rounds):
        yield ("base", "candidate") if number % 2 == 0 else ("candidate", "base")


def log_ratios(measure: Measure, num_rounds: int) -> Floats:
    """Log of candidate over base in each round, float64 [..., M, N]."""
    rounds = []
    for order in turns(num_rounds):
        taken = {side: np.log(measure(side)) for side in order}
        rounds.append(taken["candidate"] - taken["base"])
    return np.stack(rounds, axis=-1)


def judge(measure: Measure, noise_M: Floats, rule: Rule) -> Judged:
    """Rounds, the decision, and on a regression fresh rounds that must find it again."""
    margin_M = rule.margin_M(noise_M)
    logs_MN = log_ratios(measure, rule.rounds)
    first = decide(logs_MN, margin_M, rule)
    if not rule.confirm or not (first.class_M == "regression").any():
        return Judged(first, logs_MN, None)
    confirming_MN = log_ratios(measure, rule.rounds)
    second = decide(confirming_MN, margin_M, rule)
    return Judged(confirmed(first, second), logs_MN, confirming_MN)
