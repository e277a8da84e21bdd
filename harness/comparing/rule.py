"""The rule for latencies: a paired t test on log-ratios, beyond a margin, after Holm.

Everything takes leading dimensions, so that the simulation decides thousands of trials at once by
the code that decides one. M: metrics, N: rounds; a NaN is a round without a value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from harness.exact_tests import POWER, Floats, holm, sign_flips_p

# Names of classes, of any shape.
Classes = NDArray[np.str_]

# A sign flip of fewer than this cannot fall below .05 on both sides.
LEAST_ROUNDS = 6
MOST_ROUNDS = 1000
# Of identical rounds; a t of infinity would make a NaN of 0/0.
TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What counts as a change. alpha: one-sided, over all gated metrics together.

    floor: the smallest change that matters, as a share; noise_factor: of the noise of A/A rounds,
    a margin if that is more; confirm: whether a regression must be seen twice.
    """

    alpha: float
    floor: float
    noise_factor: float
    rounds: int
    confirm: bool

    def margin_M(self, noise_M: Floats) -> Floats:
        """The log-ratio that a change must go beyond, float64 [..., M]; NaN: no noise is known."""
        return np.log1p(np.fmax(self.floor, self.noise_factor * noise_M))


@dataclass(frozen=True)
class Decision:
    """Of each metric [..., M]: its class and what it stands on. Log-ratios, worse is positive.

    p: of the worsening, beyond the margin, after Holm; detectable: the change that rounds like
    these find with a power of 80 %.
    """

    class_M: Classes
    n_M: NDArray[np.int64]
    mean_M: Floats
    sd_M: Floats
    lower_M: Floats
    upper_M: Floats
    margin_M: Floats
    p_M: Floats
    detectable_M: Floats


def decide(logs_MN: Floats, margin_M: Floats, rule: Rule) -> Decision:
    """The class of each metric of one family.

    logs_MN: log of candidate over base, worse is positive, [..., M, N]; margin_M: [..., M].
    """
    n_M = np.isfinite(logs_MN).sum(axis=-1)
    enough_M = n_M >= LEAST_ROUNDS
    mean_M, sd_M = moments(logs_MN, n_M)
    error_M = np.maximum(sd_M / np.sqrt(np.maximum(n_M, 1)), TINY)
    free_M = np.maximum(n_M - 1, 1)
    worse_M = np.where(enough_M, stats.t.sf((mean_M - margin_M) / error_M, free_M), 1.0)
    better_M = np.where(enough_M, stats.t.cdf((mean_M + margin_M) / error_M, free_M), 1.0)
    equal_M = stats.t.sf((margin_M - np.abs(mean_M)) / error_M, free_M)
    p_M = holm(worse_M)
    # The last to be asked in Holm's order has all of alpha, the first only this part.
    part = rule.alpha / logs_MN.shape[-2]
    half_M = stats.t.isf(part, free_M) * error_M
    class_M = np.select(
        [~enough_M, p_M < rule.alpha, holm(better_M) < rule.alpha, equal_M < rule.alpha],
        ["insufficient_n", "regression", "improvement", "unchanged"],
        "inconclusive",
    )
    return Decision(
        class_M=class_M,
        n_M=n_M,
        mean_M=mean_M,
        sd_M=sd_M,
        lower_M=mean_M - half_M,
        upper_M=mean_M + half_M,
        margin_M=np.broadcast_to(margin_M, mean_M.shape),
        p_M=p_M,
        detectable_M=margin_M + half_M + stats.t.ppf(POWER, free_M) * error_M,
    )


def moments(logs_MN: Floats, n_M: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Mean and sample deviation of the rounds that have a value, float64 [..., M] each."""
    known_MN = np.isfinite(logs_MN)
    sum_M = np.where(known_MN, logs_MN, 0).sum(axis=-1)
    mean_M = sum_M / np.maximum(n_M, 1)
    square_MN = np.where(known_MN, logs_MN - mean_M[..., None], 0) ** 2
    return mean_M, np.sqrt(square_MN.sum(axis=-1) / np.maximum(n_M - 1, 1))


def confirmed(first: Decision, second: Decision) -> Decision:
    """The first decision, its regressions only suspicious where fresh rounds do not repeat them."""
    doubted_M = (first.class_M == "regression") & (second.class_M != "regression")
    class_M = np.where(doubted_M, "suspicious", first.class_M)
    return Decision(**{**vars(first), "class_M": class_M})


def sign_flip_p(logs_N: Floats, margin: float) -> float | None:
    """One-sided p of the same worsening without a normal distribution; None of too few."""
    known = logs_N[np.isfinite(logs_N)] - margin
    return None if known.size < LEAST_ROUNDS else sign_flips_p(known)


def rounds_needed(mean: float, sd: float, margin: float, part: float) -> int | None:
    """Rounds after which a change like this one would no longer be inconclusive; None of too many.

    part: of alpha, for this metric.
    """
    distance = abs(abs(mean) - margin)
    n = np.arange(LEAST_ROUNDS, MOST_ROUNDS + 1)
    width = (stats.t.isf(part, n - 1) + stats.t.ppf(POWER, n - 1)) * sd / np.sqrt(n)
    enough = np.flatnonzero(width <= distance)
    return int(n[enough[0]]) if enough.size else None


def noise_of(logs_MN: Floats) -> Floats:
    """How far from no change A/A rounds may lie, as a share, float64 [..., M]; NaN of too few.

    The larger of the mean they have and of its standard error.
    """
    n_M = np.isfinite(logs_MN).sum(axis=-1)
    mean_M, sd_M = moments(logs_MN, n_M)
    error_M = sd_M / np.sqrt(np.maximum(n_M, 1))
    return np.where(n_M >= LEAST_ROUNDS, np.expm1(np.maximum(np.abs(mean_M), error_M)), np.nan)
