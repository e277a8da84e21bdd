"""The record of a cell whose process left none: what was asked for, and how it ended."""

import sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from harness.asked import model_sha256, requested_budget
from harness.environment import environment, measurement
from harness.record import (
    BackendInfo,
    Config,
    ModelInfo,
    Run,
    RunError,
    RunRecord,
    RunStatus,
    System,
    Verdict,
    Workload,
)
from harness.settings import BASELINE, LocalModel, Settings
from harness.sweeps.job import Job
from harness.verdict import reasons_against


def broken_record(job: Job, status: RunStatus, error: RunError, seconds: float) -> RunRecord:
    """Without arms; what only a run could have told is null or 0."""
    ended_at = datetime.now(UTC)
    reasons = reasons_against(
        metrics={}, comparisons={}, baseline=BASELINE, num_planned=0, status=status
    )
    return RunRecord(
        run=Run(
            uid=uuid4().hex,
            status=status,
            verdict=Verdict(valid=False, reasons=tuple(reasons)),
            started_at=ended_at - timedelta(seconds=seconds),
            ended_at=ended_at,
            duration_s=seconds,
            argv=tuple(sys.argv),
        ),
        cell=job.cell,
        config=Config(resolved=dict(job.config), overrides=job.overrides, effective={}),
        workload=_workload(job.settings),
        system=_system(job.settings),
        env=environment(),
        measurement=measurement(warmup=0, interleaving="none"),
        baseline=BASELINE,
        arms={},
        comparisons={},
        errors=(error,),
    )


def _workload(settings: Settings) -> Workload:
    return Workload(
        task=settings.task.target.rpartition(".")[2].lower(),
        n_planned=0,
        n_done=0,
        seed=int(settings.task.arguments.get("seed", 0)),
        sample_ids_sha256="",
        protocol=settings.protocol.label,
        load=settings.load.model_dump(mode="json"),
        prompt_tokens=None,
    )


def _system(settings: Settings) -> System:
    model = settings.model
    name = model.path if isinstance(model, LocalModel) else f"dummy-{model.shape}"
    return System(
        algo=settings.algo.name,
        tier=settings.tier.name,
        cache=settings.cache.name,
        partition=settings.partition.name,
        backend=BackendInfo(name=settings.backend.name, version=None, kernel=None),
        model=ModelInfo(
            id=name.rstrip("/").rpartition("/")[2],
            dtype=model.dtype,
            parameters=None,
            sha256=model_sha256(settings),
        ),
        requested_budget=requested_budget(settings),
        notes=("written by the sweep: the process of the cell left no record",),
    )
