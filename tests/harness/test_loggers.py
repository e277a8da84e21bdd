"""Loggers: told after a trial is written, in time or not at all; what they miss is sent later."""

import multiprocessing
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.loggers.base import numbers
from harness.loggers.notes import FOLDER
from harness.loggers.replay import replay
from harness.loggers.send import NOT_DONE, send
from harness.recording import build_record
from harness.stored.trials import trials
from tests.harness.cli_runs import SMALL, run
from tests.harness.facts import facts
from tests.harness.offline_runs import offline_runs
from tests.harness.told import PATIENT, logger, record_of, state, written

ONLINE = "logger.target.mode=online"


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own settings of W&B, and nothing written outside of the test."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that lets others connect and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)
        yield server


def test_no_number_is_logged_that_may_not_be_read() -> None:
    record = build_record(facts())
    logged = numbers(record)
    withheld = {
        f"{arm}/{name}": metric.status
        for arm, one in record.arms.items()
        for name, metric in one.metrics.items()
        if metric.status != "ok"
    }
    assert withheld["dense/kv_cache_hit_rate"] == "unobservable"
    assert withheld["quest/p99_ttft_ms"] == "insufficient_n"
    assert not withheld.keys() & logged.keys()
    metrics = record.arms["quest"].metrics
    assert logged["quest/median_tpot_ms"] == metrics["median_tpot_ms"].value
    assert logged["quest/accuracy/macro"] == 1.0
    assert logged["quest/vs_dense/tpot_ratio"] == pytest.approx(0.5)
    assert logged["run/valid"] == 1.0


def test_what_is_logged_of_an_algorithm_is_logged_under_a_name_that_all_share() -> None:
    logged = numbers(build_record(facts()))
    quest = {name[6:]: value for name, value in logged.items() if name.startswith("quest/")}
    assert quest
    assert quest == {name[5:]: value for name, value in logged.items() if name[:5] == "algo/"}


def test_a_failed_run_is_told_of_without_metrics() -> None:
    logged = numbers(build_record(facts(arms=(), status="failed")))
    assert logged == {"run/valid": 0.0, "run/duration_s": 10.0, "run/n_done": 0.0}


def test_wandb_gets_the_whole_trial(tmp_path: Path) -> None:
    folder = written(tmp_path / "store")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert send(folder, logger("wandb", "logger.target.num_rows=3")) is None
    (told,) = offline_runs(tmp_path)
    record = record_of(folder)
    assert record.cell is not None
    assert (told.id, told.name, told.project) == (record.run.uid, folder.name, "kvloom")
    assert (told.group, told.job_type) == ("runs", record.cell.hash[:16])
    assert told.ours == {**numbers(record), "run/status": "ok"}
    assert told.config["cfg"] == record.config.resolved
    assert told.config["cell_hash"] == record.cell.hash
    assert told.exit_code == 0
    assert [row[0] for row in told.table["data"]] == ["r0", "r1", "r2"]
    assert f"trial-{record.run.uid}" in told.artifacts
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert state(folder, "wandb") == ("done", None)


def test_tensorboard_gets_the_numbers_and_the_config(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = written(tmp_path / "store")
    settings = logger("tensorboard", f"logger.target.folder={tmp_path}/tb")
    for _ in range(2):
        assert send(folder, settings) is None
    (events,) = (tmp_path / "tb").rglob("events*")
    assert events.parent.relative_to(tmp_path / "tb") == folder.relative_to(tmp_path / "store")
    told = EventAccumulator(str(events))
    told.Reload()
    logged = {tag: told.Scalars(tag)[0].value for tag in told.Tags()["scalars"]}
    assert logged == pytest.approx(numbers(record_of(folder)))
    (text,) = told.Tensors("cfg")[0].tensor_proto.string_val
    assert b'"budget_tokens": 1024' in text


def test_without_an_account_the_run_is_what_it_would_have_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("WANDB_MODE", "online")
    code, records = run((*SMALL, "logger=wandb", PATIENT), store, monkeypatch)
    assert code == 0
    said = capfd.readouterr().err.strip().splitlines()
    assert [line.startswith("kvloom: logger=wandb: ") for line in said] == [True], said
    assert "harness/sync.py" in said[0]
    (trial,) = trials(store)
    assert [record["run"]["uid"] for record in records] == [trial.record.run.uid]
    told, reason = state(trial.folder, "wandb")
    assert told == "pending"
    assert reason is not None
    assert reason in said[0]
    assert offline_runs(tmp_path) == []

    monkeypatch.setenv("WANDB_MODE", "offline")
    assert replay(store, None, again=False, changes=()) == 0
    assert state(trial.folder, "wandb") == ("done", None)
    assert [told.id for told in offline_runs(tmp_path)] == [trial.record.run.uid]
    assert replay(store, None, again=False, changes=()) == 0
    assert len(offline_runs(tmp_path)) == 1


@pytest.mark.slow
def test_a_tracker_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: socket.socket
) -> None:
    folder = written(tmp_path / "store")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
    started_s = time.monotonic()
    reason = send(folder, logger("wandb", ONLINE, "logger.timeout_s=30"))
    assert reason == "not done after 30 s"
    assert silent.accept(), "it was not W&B that took the time"
    assert time.monotonic() - started_s < 45
    assert state(folder, "wandb") == ("pending", reason)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    changes = ("target.mode=offline",)
    assert replay(tmp_path / "store", "wandb", again=False, changes=changes) == 0
    assert state(folder, "wandb") == ("done", None)


@pytest.mark.slow
def test_a_tracker_that_is_not_there_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed_port = server.getsockname()[1]
    folder = written(tmp_path / "store")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port}")
    reason = send(folder, logger("wandb", ONLINE, "logger.timeout_s=30"))
    assert reason is not None
    assert state(folder, "wandb") == ("pending", reason)
    assert record_of(folder).run.status == "ok"


def test_nothing_that_is_wrong_with_a_logger_reaches_the_run(tmp_path: Path) -> None:
    folder = written(tmp_path)
    settings = logger("wandb")
    assert settings.target is not None
    absent = settings.target.model_copy(update={"target": "harness.loggers.absent.Absent"})
    reason = send(folder, settings.model_copy(update={"target": absent}))
    assert reason is not None
    assert "names no class" in reason
    (folder.parent / FOLDER / f"{folder.name}.wandb.json").unlink()
    (folder.parent / FOLDER).rmdir()
    (folder.parent / FOLDER).write_text("no folder")
    assert "Error" in (send(folder, settings) or "")
    assert record_of(folder).run.status == "ok"


def test_no_logger_leaves_no_note(tmp_path: Path) -> None:
    folder = written(tmp_path)
    assert send(folder, logger("none")) is None
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.slow
def test_a_killed_run_leaves_its_trial_pending_and_no_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: socket.socket
) -> None:
    folder = written(tmp_path / "store")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
    settings = logger("wandb", ONLINE, "logger.timeout_s=10")
    process = multiprocessing.get_context("fork").Process(target=send, args=(folder, settings))
    process.start()
    assert process.pid is not None
    parent, deadline_s = psutil.Process(process.pid), time.monotonic() + 30
    while not (children := parent.children()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.kill()
    process.join()
    assert state(folder, "wandb") == ("pending", NOT_DONE)
    _, alive = psutil.wait_procs(children, timeout=40)
    assert not alive


def test_a_trial_of_a_sweep_is_sent_to_the_run_of_its_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path / "store")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "run1")
    assert send(folder, logger("wandb"))
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert replay(tmp_path / "store", "wandb", again=False, changes=()) == 0
    assert [(told.id, told.sweep_id) for told in offline_runs(tmp_path)] == [("run1", "sweep1")]
