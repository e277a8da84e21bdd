"""The contract of a logger, and what every logger tells of a run: one number a name."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from harness.metric import Metric
from harness.record import Arm, RunRecord
from harness.stored.trials import Trial

# Before the names of the arm that is compared with dense, whichever algorithm it is.
ANY_ALGO = "algo"


class Logger(ABC):
    """Tells a tracker about trials that the store has already.

    kept_variables: of the environment, those that a later try needs to reach the same place.
    """

    kept_variables: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def log(self, trial: Trial) -> None:
        """Tell of one trial; the same one again changes nothing there; raises if it failed."""


def numbers(record: RunRecord) -> dict[str, float]:
    """Every number of a run that may be read, by arm and name, and what it is worth as a whole.

    Those of the algorithm come twice, the second time under `algo/`, one name for all algorithms.
    """
    values = {
        f"{arm}/{name}": metric.value
        for arm, name, metric in _metrics(record)
        if metric.value is not None and metric.status == "ok"
    }
    prefix = f"{record.system.algo}/"
    shared = {
        f"{ANY_ALGO}/{name.removeprefix(prefix)}": value
        for name, value in values.items()
        if name.startswith(prefix)
    }
    whole = {
        "run/valid": float(record.run.verdict.valid),
        "run/duration_s": record.run.duration_s,
        "run/n_done": float(record.workload.n_done),
    }
    return values | shared | whole


def _metrics(record: RunRecord) -> Iterator[tuple[str, str, Metric]]:
    """Arm, name and metric: of each arm, of its scores, and against the baseline."""
    for name, arm in record.arms.items():
        yield from ((name, *one) for one in [*arm.metrics.items(), *_scores(arm)])
    for name, metrics in record.comparisons.items():
        for key, metric in metrics.items():
            yield name, f"vs_{record.baseline}/{key}", metric


def _scores(arm: Arm) -> Iterator[tuple[str, Metric]]:
    yield "accuracy/macro", arm.accuracy.macro
    for task, accuracy in arm.accuracy.tasks.items():
        yield f"accuracy/{task}", accuracy.score
