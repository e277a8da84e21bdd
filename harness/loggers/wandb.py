"""Weights & Biases: a run for each trial, with its numbers, samples and folder."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness.loggers.base import Logger, numbers
from harness.record import RunRecord, Sample
from harness.stored.identity import SHORT
from harness.stored.trials import Trial
from memory_tiers.base import options

MODES = ("offline", "online")
COLUMNS = tuple(Sample.model_fields)
SWEEP_VARIABLES = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")


@dataclass(frozen=True, kw_only=True)
class Wandb(Logger):
    """Group: the experiment; job type: the cell; name: the trial; id: of the run, or the agent's.

    entity, mode, folder: None leaves them to W&B's own variables, the mode to offline.
    num_rows: the most samples that go into the table.
    """

    project: str
    entity: str | None
    mode: str | None
    folder: str | None
    num_rows: int

    kept_variables: ClassVar = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_ENTITY")

    def __post_init__(self) -> None:
        if self.mode not in (None, *MODES):
            raise ValueError(f"logger.target.mode={self.mode!r}; choose {options(MODES)} or null")
        if self.num_rows < 0:
            raise ValueError(f"logger.target.num_rows={self.num_rows} must not be negative")

    def log(self, trial: Trial) -> None:
        """See Logger."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        run = wandb.init(**self._place(trial), **_identity(trial), settings=_quiet(wandb.Settings))
        try:
            run.summary.update(numbers(trial.record) | {"run/status": trial.record.run.status})
            rows = [list(one.model_dump(mode="json").values()) for one in self._shown(trial)]
            # A step of its own: told again, the table is not there twice.
            run.log({"samples": wandb.Table(columns=list(COLUMNS), data=rows)}, step=0)
            artifact = wandb.Artifact(f"trial-{trial.record.run.uid}", type="trial")
            artifact.add_dir(str(trial.folder))
            run.log_artifact(artifact)
        finally:
            run.finish(exit_code=0 if trial.record.run.status == "ok" else 1)

    def _place(self, trial: Trial) -> dict[str, Any]:
        mode = self.mode or os.environ.get("WANDB_MODE", "offline")
        if self.folder is not None:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
        return {
            "project": os.environ.get("WANDB_PROJECT", self.project),
            "entity": self.entity,
            "mode": mode,
            "dir": self.folder,
            "id": _run_id(trial.record),
            # Only a server knows earlier runs.
            "resume": "allow" if mode == "online" else None,
        }

    def _shown(self, trial: Trial) -> tuple[Sample, ...]:
        return trial.samples[: self.num_rows]


def _identity(trial: Trial) -> dict[str, Any]:
    """What a run is called, and its config under one key: a sweep's values would overwrite ours."""
    record, cell = trial.record, trial.record.cell
    return {
        "name": trial.folder.name,
        "group": cell.experiment if cell else None,
        "job_type": cell.hash[:SHORT] if cell else None,
        "tags": [record.system.algo, record.system.tier],
        "config": {"cfg": record.config.resolved, "cell_hash": cell.hash if cell else None},
    }


def _run_id(record: RunRecord) -> str:
    """The agent's id where it started this run alone; W&B takes no other inside of its sweeps."""
    ours = record.cell is not None and record.cell.order is not None
    if "WANDB_SWEEP_ID" in os.environ and "WANDB_RUN_ID" in os.environ and not ours:
        return os.environ["WANDB_RUN_ID"]
    for name in SWEEP_VARIABLES:
        os.environ.pop(name, None)
    return record.run.uid


def _quiet(settings: Any) -> Any:
    """Nothing on the terminal, and nothing of this process: the trial is what is told."""
    return settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
