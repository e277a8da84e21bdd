"""Whole runs, from the command line to the record."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from harness.stored.trials import Trial, scan
from tests.harness.cli_runs import SMALL, content, run
from tests.laws.configs import composed, options

ROOT = Path(__file__).resolve().parents[2]
# Studies answer other questions, and have tests of their own.
EXPERIMENTS = [
    name for name in options("experiment") if composed(f"experiment={name}")["study"] is None
]
SYSTEMS = [
    ("algo=dense",),
    ("algo=streaming", "algo.evict.budget_tokens=64"),
    ("algo=oracle_topk", "algo.retrieve.budget_tokens=64"),
    ("algo=streaming", "algo/retrieve=quest", "algo.retrieve.budget_tokens=64"),
    ("algo.retrieve.budget_tokens=0.25", "algo.dense_layers=2"),
    ("protocol=question_dense", "protocol.temperature=0.7"),
    ("load=batch", "backend.max_batch=2", "backend.chunk_tokens=100"),
    ("backend.kernel=torch", "task.haystack=prose", "task.values=uuids"),
]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_committed_experiment_runs_small(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a grid, the cell of the defaults: sweeps have tests of their own.
    overrides = (f"experiment={experiment}", "hydra.mode=RUN", *SMALL)
    code, records = run(overrides, tmp_path, monkeypatch)
    assert code == 0
    assert records[0]["run"]["status"] == "ok"
    assert set(records[0]["arms"]) == {"dense", "quest"}


@pytest.mark.parametrize("overrides", SYSTEMS, ids=" ".join)
def test_a_composed_system_answers_every_request(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, (record,) = run((*SMALL, *overrides), tmp_path, monkeypatch)
    assert code == 0
    assert record["workload"]["n_done"] == record["workload"]["n_planned"] == 3
    for sample in record["samples"]:
        assert sample["num_output_tokens"] > 0
        assert sample["score"] is not None


def test_a_random_model_is_measured_and_not_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("model=dummy", "task=random", "task.length=256", "task.num_samples=2",
                 "task.max_new_tokens=8", "load.warmup_tokens=64")  # fmt: skip
    code, (record,) = run(overrides, tmp_path, monkeypatch)
    assert code == 0
    assert record["arms"]["quest"]["accuracy"]["tasks"] == {}
    assert record["arms"]["quest"]["metrics"]["median_tpot_ms"]["value"] > 0
    assert any("random weights" in note for note in record["system"]["notes"])


def test_a_small_hbm_gives_the_same_answers_and_moves_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ("task.num_samples=2", "task.length=1024", "backend.chunk_tokens=128",
              "algo.retrieve.budget_tokens=128")  # fmt: skip
    _, (whole,) = run(common, tmp_path / "hbm", monkeypatch)
    tiers = ("tier=hbm+cpu", "tier.hbm.size=0.1")
    _, (tenth,) = run((*common, *tiers), tmp_path / "both", monkeypatch)
    answers = [[one["answer"] for one in record["samples"]] for record in (whole, tenth)]
    assert answers[0] == answers[1]
    for name, arm in tenth["arms"].items():
        moved = arm["counters"]["decode"]["bytes_moved"]
        assert arm["counters"]["decode"]["pages_evicted"] > 0, name
        assert moved["cpu->hbm"] > 0, name
        assert arm["peak_bytes"]["hbm"] <= tenth["config"]["effective"][name]["tier_bytes"]["hbm"]
        assert arm["peak_bytes"]["hbm"] <= 0.1 * whole["arms"][name]["peak_bytes"]["hbm"] * 1.01


def test_the_path_of_the_record_is_printed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(SMALL, tmp_path, monkeypatch)
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert json.loads(Path(last).read_text())["run"]["status"] == "ok"


def test_a_run_leaves_nothing_but_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, (_,) = run(SMALL, tmp_path / "kept", monkeypatch)
    assert code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_cell_that_breaks_off_is_recorded_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError("no room for the step")

    monkeypatch.setattr("backends.transformers.engine.TransformersBackend.step", exhausted)
    code, (record,) = run(SMALL, tmp_path, monkeypatch)
    assert code == 4
    assert record["run"]["status"] == "oom"
    assert record["errors"][0]["message"] == "no room for the step"
    assert not record["run"]["verdict"]["valid"]
    assert "no room for the step" in capsys.readouterr().err


def test_memory_that_cannot_be_had_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("memory_tiers.huge.mmap.mmap", refused)
    code, (record,) = run(SMALL, tmp_path, monkeypatch)
    assert code == 4
    assert record["run"]["status"] == "oom"
    assert "tier.hbm.size asks for" in record["errors"][0]["message"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_that_is_stopped_leaves_earlier_records_whole(
    sent: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (earlier,) = run(SMALL, tmp_path, monkeypatch)
    overrides = ("task.num_samples=10", "task.length=1024", f"results={tmp_path}")
    command = [sys.executable, "harness/run.py", *overrides]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        # A shell starts what it leaves in the background deaf to Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    assert b"requests" in child.stdout.readline()
    time.sleep(0.2)
    child.send_signal(sent)
    assert child.wait(timeout=60) == code
    assert all(isinstance(found, Trial) for found in scan(tmp_path))
    records = [content(path) for path in tmp_path.rglob("record.json")]
    assert earlier in records
    interrupted = [one for one in records if one["run"]["status"] == "interrupted"]
    assert len(interrupted) == len(records) - 1 == (sent == signal.SIGINT)
