"""What a launcher runs for each cell: a supervisor of its process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from harness.asked import model_sha256
from harness.loggers.send import tell
from harness.settings import Settings, SweepSettings
from harness.stored.identity import cell_of
from harness.sweeps.cells import run_job
from harness.sweeps.child import run_child
from harness.sweeps.display import line
from harness.sweeps.job import Done, Job
from harness.sweeps.supervision import Limits


def run_cell_of_sweep(
    settings: Settings, config: dict[str, Any], overrides: Sequence[str], experiment: str
) -> Done:
    """Run a cell in its own process, unless it is in the store."""
    cell = cell_of(settings, model_sha256(settings), experiment=experiment)
    job = Job(overrides=tuple(overrides), config=config, settings=settings, cell=cell)
    done = run_job(job, run_child, limits_of(settings.sweep))
    if done.folder is not None and not done.was_kept:
        tell(Path(done.folder), settings.logger)
    if settings.sweep.total is not None and done.status != "busy":
        said = line(done, done.order + 1, settings.sweep.total)
        Console(soft_wrap=True).print(said, highlight=False, markup=False)
    return done


def limits_of(settings: SweepSettings) -> Limits:
    """The limits in seconds and bytes."""
    memory = settings.memory
    if isinstance(memory, float):
        memory = int(memory * psutil.virtual_memory().total)
    return Limits(timeout_s=settings.timeout_s, memory_bytes=memory)
