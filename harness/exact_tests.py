"""Tests that assume no distribution, and Holm's adjustment of several of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
# With which a change is to be found, where it is said how many observations that takes.
POWER = 0.8


def sign_flips_p(values_N: Floats) -> float:
    """One-sided p of a mean above zero, where each value could as well have the other sign."""
    if values_N.size == 1:
        # Too few for scipy: of its two signs, one or both lie as high.
        return 0.5 if values_N[0] > 0 else 1.0
    tested: Any = stats.permutation_test(
        (values_N,),
        lambda values, axis: np.mean(values, axis=axis),
        permutation_type="samples",
        alternative="greater",
        n_resamples=2**14,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(tested.pvalue)


def holm(p_M: Floats) -> Floats:
    """Adjusted p along the last axis: below alpha are those that Holm's procedure rejects."""
    order_M = np.argsort(p_M, axis=-1)
    size = p_M.shape[-1]
    sorted_M = np.take_along_axis(p_M, order_M, axis=-1) * np.arange(size, 0, -1)
    adjusted_M = np.minimum(np.maximum.accumulate(sorted_M, axis=-1), 1)
    return np.take_along_axis(adjusted_M, np.argsort(order_M, axis=-1), axis=-1)
