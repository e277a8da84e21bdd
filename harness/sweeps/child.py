"""The process of a cell: the command line again, for this one cell."""

import sys
from pathlib import Path

from harness.sweeps.job import Job
from harness.sweeps.supervision import Ended, Limits, supervise

PROGRAM = Path(__file__).resolve().parents[1] / "run.py"


def run_child(job: Job, into: Path, log: Path, limits: Limits) -> Ended:
    """Run a job by itself; its trial goes into `into`, in the way of a store."""
    return supervise([sys.executable, str(PROGRAM), *arguments(job, into)], log, limits)


def arguments(job: Job, into: Path) -> list[str]:
    """The words that run this job as a single run."""
    cell = job.cell
    places = {"round": cell.round, "order": cell.order, "attempt": cell.attempt}
    given = [f"sweep.{name}={value}" for name, value in places.items() if value is not None]
    names = [f"sweep.name={_quoted(cell.experiment)}", f"sweep.into={_quoted(str(into))}"]
    # An experiment may ask for a sweep by itself.
    return [*job.overrides, *names, *given, "hydra.mode=RUN"]


def _quoted(text: str) -> str:
    """A string for Hydra, whatever is in it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
