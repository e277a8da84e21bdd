"""From what a probe saw to the metrics and the part of a record that say it."""

from typing import NamedTuple

import numpy as np

from harness.metric import Metric, Quantity
from harness.metrics import percentile
from harness.outcome import Floats, Probed
from harness.record import Fidelity, Grid

RECALL = Quantity(unit="fraction", direction="higher", source="accounting")
ERROR = Quantity(unit="ratio", direction="lower", source="accounting")


class Seen(NamedTuple):
    """A quantity, its values per sequence and step, and the percentiles on its bad side."""

    quantity: Quantity
    values_NLH: Floats
    bad: dict[str, float]


def fidelity_metrics(probed: Probed) -> dict[str, Metric]:
    """Mean, worst tenth and worst of the steps, each of which is a mean over layers and heads."""
    seen = {
        "mass_recalled": Seen(RECALL, probed.recalled_NLH, {"p10": 10, "min": 0}),
        "output_error": Seen(ERROR, probed.error_NLH, {"p90": 90, "max": 100}),
    }
    metrics = {}
    for name, (quantity, values_NLH, bad) in seen.items():
        steps = [float(step_LH.mean()) for step_LH in values_NLH]
        found = {"mean": float(np.mean(steps)) if steps else None}
        found |= {label: percentile(steps, percent) for label, percent in bad.items()}
        for label, value in found.items():
            metrics[f"{label}_{name}"] = quantity.metric(value, n=len(steps), aggregation=label)
    return metrics


def fidelity_part(probed: Probed) -> Fidelity:
    """What a record keeps beside the metrics."""
    return Fidelity(
        every=probed.every,
        uids=probed.uids,
        differing=probed.differing,
        num_steps=len(probed.recalled_NLH),
        mass_recalled_LH=mean_over_steps(probed.recalled_NLH),
        output_error_LH=mean_over_steps(probed.error_NLH),
    )


def mean_over_steps(values_NLH: Floats) -> Grid:
    """By layer and query head; nothing without steps, None where it is no number."""
    if not len(values_NLH):
        return ()
    mean_LH = values_NLH.mean(axis=0, dtype=np.float64)
    return tuple(
        tuple(float(value) if np.isfinite(value) else None for value in row_H) for row_H in mean_LH
    )
