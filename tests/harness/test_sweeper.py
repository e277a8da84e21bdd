"""Grids of cells: in which order they run, what is told of them, and with which code they end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from harness.sweeps.job import Done, Status
from harness.sweeps.sweeper import register
from tests.harness.cli_runs import SMALL, run
from tests.laws.configs import CONF

GRID = ("algo=quest,dense,arkvale",)


def sweep(task: Callable[[DictConfig], Any], *overrides: str) -> object:
    """The exit code of a sweep whose cells are calls of `task`."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        with pytest.raises(SystemExit) as ended:
            hydra.multirun(config_name="run", task_function=task, overrides=list(overrides))
    return ended.value.code


def done(status: Status = "ok", **changes: Any) -> Done:
    plain: dict[str, Any] = {
        "label": "",
        "order": 0,
        "was_kept": False,
        "seconds": 3,
        "folder": None,
    }
    return Done(status=status, **(plain | changes))


class Cells:
    """Notes which cells it was given; ends each as `ends` says of its number."""

    def __init__(self, **ends: Status) -> None:
        self.seen: list[tuple[str, int, int, bool]] = []
        self.ends = ends

    def __call__(self, config: DictConfig) -> Done:
        rules = config.sweep
        self.seen.append((config.algo.name, rules.round, rules.order, rules.wait))
        if rules.wait:
            return done(was_kept=True)
        return done(self.ends.get(f"n{rules.order}", "ok"))


def test_rounds_alternate_their_direction_so_that_a_drift_meets_all_alike() -> None:
    cells = Cells()
    assert sweep(as_function(cells), *GRID, "sweep.rounds=2") == 0
    grid = ["quest", "dense", "arkvale"]
    assert [one[0] for one in cells.seen] == [*grid, *grid[::-1]]
    assert [one[1] for one in cells.seen] == [0, 0, 0, 1, 1, 1]
    assert [one[2] for one in cells.seen] == list(range(6))
    places = [sum(one[2] for one in cells.seen if one[0] == name) for name in grid]
    assert places == [5, 5, 5]


def test_a_cell_that_fails_stops_nothing_and_shows_in_the_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells = Cells(n1="timeout", n2="incompatible")
    assert sweep(as_function(cells), *GRID) == 4
    assert len(cells.seen) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/3] quest 256 hbm: ok 3 s")
    assert lines[1].startswith("[2/3] dense hbm: timeout 3 s")
    assert lines[2] == "[3/3] arkvale 256 hbm: incompatible 3 s"
    assert [line.split()[-1] for line in lines[5:8]] == ["ok", "timeout", "incompatible"]


def test_a_task_that_raises_is_a_cell_that_failed(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_: DictConfig) -> Done:
        raise OSError(28, "No space left on device")

    assert sweep(broken, "algo=quest,dense") == 4
    assert "No space left on device" in capsys.readouterr().out


def test_cells_that_run_elsewhere_come_last_and_are_waited_for() -> None:
    cells = Cells(n0="busy", n2="busy")
    assert sweep(as_function(cells), *GRID) == 0
    assert [(one[2], one[3]) for one in cells.seen] == [
        *((order, False) for order in range(3)),
        (0, True),
        (2, True),
    ]


def test_a_sweep_that_is_stopped_runs_no_further_cell() -> None:
    cells = Cells(n1="interrupted")
    assert sweep(as_function(cells), *GRID) == 130
    assert len(cells.seen) == 2


@pytest.mark.parametrize("grid", [("algo=glob(nix*)",), ("algo=quest", "tier=glob(ssd*)")])
def test_a_grid_without_cells_has_measured_nothing(
    grid: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    cells = Cells()
    assert sweep(as_function(cells), *grid) == 3
    assert cells.seen == []
    assert "no cell to run" in capsys.readouterr().err


def test_a_value_that_is_off_ends_a_sweep_before_a_cell_has_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells = Cells()
    assert sweep(as_function(cells), "backend.max_batch=1,0") == 2
    assert cells.seen == []
    assert "backend.max_batch=0" in capsys.readouterr().err


def test_an_experiment_may_be_a_grid() -> None:
    cells = Cells()
    assert sweep(as_function(cells), "experiment=grid", "tier=hbm") == 0
    assert [one[0] for one in cells.seen] == ["quest", "arkvale", "streaming"]


@pytest.mark.slow
def test_a_sweep_runs_records_and_keeps_real_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ("-m", *SMALL, "algo.retrieve.budget_tokens=64,1")
    code, records = run(grid, tmp_path, monkeypatch)
    assert code == 4
    assert [one["run"]["status"] for one in records] == ["ok", "incompatible"]
    assert records[1]["errors"][0]["message"].startswith("algo.retrieve")
    assert not [one for one in records[0]["config"]["overrides"] if one.startswith("sweep.")]
    again, same = run(grid, tmp_path, monkeypatch)
    assert (again, same) == (4, records)
    # Short answers may spoil the first; the second is refused for good.
    said = capsys.readouterr().out
    assert "quest 64 hbm: ok, not valid, kept" in said or "quest 64 hbm: kept" in said
    assert "quest 1 hbm: incompatible, kept" in said
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def as_function(cells: Cells) -> Callable[[DictConfig], Done]:
    # Hydra asks a task for its source file.
    return lambda config: cells(config)
