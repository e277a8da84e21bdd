"""Cells in parallel: each launcher that is an extra runs the same grid to the same store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.stored.trials import trials
from tests.harness.cli_runs import SMALL

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = {
    "joblib": ("hydra.launcher.n_jobs=2",),
    "submitit_local": ("hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_runs_every_cell_in_a_process_of_its_own(name: str, tmp_path: Path) -> None:
    pytest.importorskip({"joblib": "hydra_plugins.hydra_joblib_launcher"}.get(name, "submitit"))
    grid = ("algo=dense,quest", f"hydra/launcher={name}", *LAUNCHERS[name], *SMALL)
    ended = subprocess.run(
        [sys.executable, "harness/run.py", "-m", *grid, f"results={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    stored = trials(tmp_path)
    assert sorted(trial.record.system.algo for trial in stored) == ["dense", "quest"]
    assert {trial.record.run.status for trial in stored} == {"ok"}
    assert sorted(trial.record.cell.order for trial in stored if trial.record.cell) == [0, 1]
