"""Sweeps of W&B: its own agent starts our program; only the answers of its server are ours."""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from wandb.apis.public import sweeps as server
from wandb.wandb_agent import Agent

from harness.composing import settings_from
from harness.loggers.base import numbers
from harness.recording import build_record
from harness.stored.trials import trials
from tests.harness.facts import facts
from tests.harness.offline_runs import offline_runs

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "conf" / "sweeps").glob("*.yaml"))
SMALL = {
    "task.num_samples": 1,
    "task.length": 512,
    "load.warmup_tokens": 64,
    "logger.timeout_s": 300,
}
each_sweep = pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def corners(parameters: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every cell of a grid; of a range its two ends."""
    choices = [
        one["values"] if "values" in one else [one.get("value", one.get("min")), one.get("max")]
        for one in parameters.values()
    ]
    for cell in product(*([one for one in some if one is not None] for some in choices)):
        yield dict(zip(parameters, cell, strict=True))


@each_sweep
def test_every_cell_of_a_sweep_is_one_that_we_accept(path: Path) -> None:
    sweep = read(path)
    assert (ROOT / sweep["program"]).is_file()
    cells = list(corners(sweep["parameters"]))
    assert len(cells) == 6
    for cell in cells:
        settings = settings_from([f"{key}={value}" for key, value in cell.items()])
        assert settings.logger.name == "wandb"


@each_sweep
def test_the_goal_of_a_sweep_is_a_number_that_we_log(path: Path) -> None:
    assert read(path)["metric"]["name"] in numbers(build_record(facts()))


@pytest.mark.slow
def test_the_agent_of_wandb_runs_a_sweep_of_six_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "conf" / "sweeps" / "grid.yaml"
    small = {**SMALL, "results": str(tmp_path / "store")}
    cells = [{**cell, **small} for cell in corners(read(path)["parameters"])]
    assert drive_agent(path.read_text(), cells, tmp_path, monkeypatch) == (6, 0)

    kept = {str(one.folder.name): one for one in trials(tmp_path / "store")}
    systems = {(one.record.system.algo, one.record.system.tier) for one in kept.values()}
    assert systems == set(product(("quest", "streaming", "snapkv"), ("hbm", "hbm+cpu")))
    runs = offline_runs(tmp_path)
    assert {run.id for run in runs} == {f"run{number}" for number in range(6)}
    assert {run.name for run in runs} == set(kept)
    for run in runs:
        record = kept[run.name].record
        assert run.sweep_id == "sweep1"
        assert run.group == "wandb_grid"
        assert run.ours == {**numbers(record), "run/status": "ok"}
        assert read(path)["metric"]["name"] in run.ours
        # The agent's values overwrite keys of their names: ours are below one of their own.
        assert run.config["algo"] == record.system.algo
        assert run.config["cfg"] == json.loads(json.dumps(record.config.resolved))
        assert run.config["cfg"]["tier"]["name"] == record.system.tier


def drive_agent(
    sweep: str, cells: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """How many cells the agent finished, and how many of those failed."""
    environment = {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_SILENT": "true",
        "WANDB_SWEEP_ID": "sweep1",
        "WANDB_PROJECT": "kvloom",
        "WANDB_ERROR_REPORTING": "false",
        # The agent sets these two itself, and leaves them set.
        "WANDB_RUN_ID": "",
        "WANDB_SWEEP_PARAM_PATH": "",
        # It starts `python`, whichever comes first.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    todo = [
        {
            "type": "run",
            "run_id": f"run{number}",
            "program": yaml.safe_load(sweep)["program"],
            "args": {key: {"value": value} for key, value in cell.items()},
        }
        for number, cell in enumerate(cells)
    ]

    def heartbeat(_api: Any, _agent: str, _metrics: Any, states: Any) -> list[dict[str, Any]]:
        if states:
            return []
        return [todo.pop(0)] if todo else [{"type": "exit"}]

    monkeypatch.setattr(server, "_sweep_with_runs", lambda *_, **__: {"config": sweep})
    monkeypatch.setattr(server, "_register_agent", lambda *_, **__: {"id": "agent1"})
    monkeypatch.setattr(server, "_agent_heartbeat", heartbeat)
    monkeypatch.setattr(wandb, "Api", lambda *_, **__: None)
    monkeypatch.setattr(Agent, "POLL_INTERVAL", 0.2)
    agent = Agent(None, multiprocessing.Queue(), sweep_id="sweep1")
    agent.run()
    return agent._finished, agent._failed
