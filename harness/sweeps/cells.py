"""One cell of a sweep: kept if it is in the store, else run in its own process and recorded."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.record import RunRecord
from harness.stored.files import temporary_name
from harness.stored.locks import cell_lock
from harness.stored.quarantine import sound_trials
from harness.stored.trials import LOG, OWN, Trial, trials, write_trial
from harness.sweeps.broken import broken_record
from harness.sweeps.classified import classify, kernel_oom_kills
from harness.sweeps.job import Done, Job, Status, label_of
from harness.sweeps.supervision import Ended, Limits

# Runs a job: its trial goes into the folder, as into a store, its output into the log.
Runner = Callable[[Job, Path, Path, Limits], Ended]
LOG_BYTES = 4 * 2**20


def run_job(job: Job, run: Runner, limits: Limits) -> Done:
    """Run a job unless its trial is there, or another process is at it."""
    started_s = time.monotonic()
    with cell_lock(job.folder, wait=job.settings.sweep.wait) as is_ours:
        if not is_ours:
            return _done(job, "busy", started_s)
        tried = [one for one in sound_trials(job.folder, job.store) if is_try_of(job, one.record)]
        if (kept := to_keep(job, tried)) is not None:
            return _done(job, status_of(kept.record), started_s, kept, was_kept=True)
        job = job.tried(len(tried))
        trial = _run(job, run, limits)
    return _done(job, status_of(trial.record), started_s, trial)


def is_try_of(job: Job, record: RunRecord) -> bool:
    """Whether a record is of this cell, this code and this round."""
    cell, wanted = record.cell, job.cell
    return cell is not None and (cell.hash, cell.code, cell.round) == (
        wanted.hash,
        wanted.code,
        wanted.round,
    )


def to_keep(job: Job, tried: Sequence[Trial]) -> Trial | None:
    """The trial that stands for the job; None if it is to be run.

    What ended well stays. What did not is tried again where `sweep.retry` names how it ended, as
    long as there are attempts; what was stopped is always.
    """
    good = [one for one in tried if status_of(one.record) == "ok"]
    counted = [one for one in tried if one.record.run.status != "interrupted"]
    if good or not counted:
        return good[-1] if good else None
    rules, last = job.settings.sweep, counted[-1]
    is_retried = status_of(last.record) in rules.retry and len(counted) < rules.attempts
    return None if is_retried else last


def status_of(record: RunRecord) -> Status:
    """How a run ended; one that measured nothing has failed."""
    is_empty = record.run.status == "ok" and not record.workload.n_done
    return "failed" if is_empty else record.run.status


def _run(job: Job, run: Runner, limits: Limits) -> Trial:
    kills = kernel_oom_kills()
    with _staging(job.folder) as staging:
        log = staging / LOG
        log.touch()
        ended = run(job, staging, log, limits)
        left = trials(staging)
        said = _tail(log)
        if left:
            return _published(left[-1], job, said)
        status, error = classify(
            ended, limits, said.decode(errors="replace"), oom_killed=kernel_oom_kills() != kills
        )
        record = broken_record(job, status, error, ended.seconds)
        return Trial(write_trial(record, job.store, (), {LOG: said}), record)


@contextmanager
def _staging(cell: Path) -> Iterator[Path]:
    """A folder that no reader of the store looks into."""
    folder = temporary_name(cell)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _published(trial: Trial, job: Job, said: bytes) -> Trial:
    """A trial that a process left, now in the store, with what the process said."""
    files = {path.name: path for path in trial.folder.iterdir() if path.name not in OWN}
    beside = {name: path.read_bytes() for name, path in files.items()}
    record = trial.record.model_copy(update={"samples": trial.samples})
    folder = write_trial(record, job.store, trial.requests, {**beside, LOG: said})
    return Trial(folder, record)


def _tail(log: Path) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - LOG_BYTES))
        return file.read()


def _reason(record: RunRecord) -> str:
    return record.errors[-1].message if record.errors else "; ".join(record.run.verdict.reasons)


def _done(
    job: Job,
    status: Status,
    started_s: float,
    trial: Trial | None = None,
    *,
    was_kept: bool = False,
) -> Done:
    return Done(
        label=label_of(job.settings),
        order=job.cell.order or 0,
        status=status,
        was_kept=was_kept,
        seconds=time.monotonic() - started_s,
        folder=None if trial is None else str(trial.folder),
        message="" if trial is None else " ".join(_reason(trial.record).split()),
        is_valid=trial is None or trial.record.run.verdict.valid,
    )
