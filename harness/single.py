"""One run in this process: from settings to a trial in the store and a table on the screen."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.asked import model_sha256
from harness.build import build
from harness.cell import prepare, run_cell
from harness.exits import FAILED, INTERRUPTED, NOTHING, OK, complain
from harness.fidelity_picture import pictures
from harness.loggers.send import tell
from harness.prepared import Prepared
from harness.record import Cell, RunRecord
from harness.resume import Resumed, resumed
from harness.settings import Settings
from harness.stored.files import check_writable
from harness.stored.identity import cell_of
from harness.stored.trials import RECORD, write_trial
from harness.studies.base import Study
from harness.table import render
from harness.tracing import finished_trace, trace_path


def run_single(
    settings: Settings, config: dict[str, Any], overrides: Sequence[str], experiment: str
) -> int:
    """Run a system, or a study; the exit code. Raises ValueError of one line for what is off."""
    console = Console(soft_wrap=False)
    if settings.study is not None:
        study: Study = build(settings.study, "study")
        return study.run(settings, console)
    prepared, root = prepare(settings), Path(settings.sweep.into or settings.results)
    check_writable(root)
    cell = cell_of(settings, model_sha256(settings), experiment=experiment)
    with _earlier(prepared, cell, console) as earlier:
        finished = run_cell(prepared, config, overrides, sys.argv, console, cell, earlier)
        record = finished.record
        folder = write_trial(record, root, finished.requests, pictures(record))
        if record.run.status == "ok":
            earlier.forget()
    path = folder / RECORD
    render(record, console)
    if prepared.recorder is not None and record.run.status == "ok":
        where = trace_path(settings, path)
        _save_trace(prepared, record, where)
        console.print(f"trace: {where}", soft_wrap=True, highlight=False, markup=False)
    console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    if settings.sweep.into is None:
        tell(folder, settings.logger)
    return _exit_code(record)


@contextmanager
def _earlier(prepared: Prepared, cell: Cell, console: Console) -> Iterator[Resumed]:
    """What a killed process has left of this cell; a trace has to be recorded in one piece."""
    settings, workload = prepared.settings, prepared.workload
    earlier = Resumed()
    if prepared.recorder is None:
        earlier = resumed(
            Path(settings.results),
            cell,
            uids=[item.source.uid for item in workload.items],
            arms=list(prepared.algorithms),
            at_once=prepared.at_once,
            fresh=not settings.resume,
        )
    if earlier.said is not None:
        console.print(earlier.said, soft_wrap=True, highlight=False, markup=False)
    try:
        yield earlier
    finally:
        earlier.close()


def _save_trace(prepared: Prepared, record: RunRecord, where: Path) -> None:
    assert prepared.recorder is not None
    trace = finished_trace(
        prepared.recorder,
        prepared.settings,
        prepared.algorithm,
        prepared.plan,
        prepared.info,
        record.system.model.parameters or 0,
    )
    trace.save(where)


def _exit_code(record: RunRecord) -> int:
    if record.run.status == "interrupted":
        return INTERRUPTED
    if record.run.status != "ok":
        for error in record.errors:
            complain(f"{error.kind} ({error.stage}): {error.message}")
        return FAILED
    return OK if record.workload.n_done else NOTHING
