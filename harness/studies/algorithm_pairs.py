"""Which algorithms of a comparison differ: paired tests over the same requests."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from harness.exact_tests import Floats, holm, sign_flips_p

ALPHA = 0.05
RULE = (
    "both answered the same requests, each of a context of its own; signs of the changes flipped, "
    f"two-sided, Holm over all pairs of a length and budget, {ALPHA:g}"
)


def separations(
    answers: Sequence[Mapping[str, Any]], budgets: Sequence[int]
) -> list[dict[str, Any]]:
    """For each length and budget, which pairs of algorithms differ; those without one are in each.

    `better`: by algorithm, those that it beats.
    """
    scores: dict[tuple[int, int | None, str], dict[str, float]] = {}
    for one in answers:
        if "score" in one:
            by_request = scores.setdefault((one["length"], one["budget"], one["algo"]), {})
            by_request[one["uid"]] = one["score"]
    lengths = dict.fromkeys(length for length, _, _ in scores)
    return [_separation(scores, length, budget) for length in lengths for budget in budgets]


def _separation(
    scores: Mapping[tuple[int, int | None, str], Mapping[str, float]], length: int, budget: int
) -> dict[str, Any]:
    mine = {
        algo: by_request
        for (at, given, algo), by_request in scores.items()
        if at == length and given in (budget, None)
    }
    pairs = list(combinations(mine, 2))
    changes = [_changes(mine[one], mine[other]) for one, other in pairs]
    adjusted = holm(np.array([_two_sided_p(change_N) for change_N in changes])).tolist()
    better: dict[str, list[str]] = {algo: [] for algo in mine}
    for winner, loser in _differing(pairs, changes, adjusted):
        better[winner].append(loser)
    return {
        "length": length,
        "budget": budget,
        "num_pairs": len(pairs),
        "num_separated": sum(map(len, better.values())),
        "better": better,
    }


def _changes(one: Mapping[str, float], other: Mapping[str, float]) -> Floats:
    return np.array([one[uid] - other[uid] for uid in one if uid in other])


def _two_sided_p(change_N: Floats) -> float:
    """Requests that both answered alike say nothing."""
    known_N = change_N[change_N != 0]
    if not known_N.size:
        return 1.0
    return min(1.0, 2 * sign_flips_p(known_N if known_N.sum() > 0 else -known_N))


def _differing(
    pairs: Sequence[tuple[str, str]], changes: Sequence[Floats], adjusted: Sequence[float]
) -> Iterator[tuple[str, str]]:
    for (one, other), change_N, p in zip(pairs, changes, adjusted, strict=True):
        if p < ALPHA:
            yield (one, other) if change_N.sum() > 0 else (other, one)
