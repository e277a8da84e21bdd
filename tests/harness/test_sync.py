"""Sync sends later what a logger missed; a command with a time limit leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.loggers.limited import run_limited
from harness.loggers.notes import FOLDER
from harness.loggers.replay import replay
from harness.loggers.send import send
from harness.stored.trials import RECORD, SAMPLES
from tests.harness.told import logger, state, written

ROOT = Path(__file__).resolve().parents[2]


def test_a_command_over_its_time_leaves_nothing_running(tmp_path: Path) -> None:
    # Its own child is in a session of its own, as the service of W&B is.
    told = tmp_path / "pids"
    program = (
        "import subprocess, sys, os, time\n"
        "c = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        f"open({str(told)!r}, 'w').write(f'{{os.getpid()}} {{c.pid}}')\n"
        "time.sleep(60)\n"
    )
    reason = run_limited([sys.executable, "-c", program], "", os.environ, timeout_s=10)
    assert reason == "not done after 10 s"
    pids = [int(pid) for pid in told.read_text().split()]
    assert len(pids) == 2
    assert not [pid for pid in pids if psutil.pid_exists(pid) and not is_zombie(pid)]


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_reason_of_a_failure_is_one_line() -> None:
    def reason(program: str) -> str | None:
        return run_limited([sys.executable, "-c", program], "", os.environ, timeout_s=30)

    assert reason("") is None
    assert reason("import sys; sys.exit(3)") == "exit code 3"
    assert reason("print('no key'); raise SystemExit(1)") == "no key"
    assert reason("raise ValueError('a\\nb')") == "b"


def test_sync_sends_a_logger_what_it_has_not_got_and_names_what_is_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, changes = tmp_path / "store", (f"target.folder={tmp_path}/tb", "timeout_s=300")
    first, second = written(store), written(store)
    assert send(first, logger("tensorboard", f"logger.target.folder={tmp_path}/tb")) is None
    assert replay(store, "tensorboard", again=False, changes=changes) == 0
    assert capsys.readouterr().out == "1 sent, 0 failed\n"
    assert state(second, "tensorboard") == ("done", None)
    assert replay(store, "tensorboard", again=False, changes=changes) == 0
    assert capsys.readouterr().out == "0 sent, 0 failed\n"

    note = first.parent / FOLDER / f"{first.name}.tensorboard.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "state": "pending"}))
    (first / SAMPLES).write_text("")
    assert replay(store, None, again=False, changes=()) == 4
    said = capsys.readouterr()
    assert said.out == "0 sent, 1 failed\n"
    assert f"{SAMPLES} is not what was written" in said.err
    assert state(first, "tensorboard")[0] == "pending"


@pytest.mark.parametrize(
    ("name", "again", "said"),
    [("abc", False, "choose tensorboard, wandb"), (None, True, "--again needs --logger")],
)
def test_a_slip_of_the_user_is_one_line(
    name: str | None, again: bool, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(tmp_path, name, again=again, changes=()) == 2
    told = capsys.readouterr().err
    assert told.startswith("kvloom: ")
    assert said in told
    assert told.count("\n") == 1


def test_sync_runs_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "harness" / "sync.py"), "absent"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "kvloom: absent: there is no such store\n"


def test_a_setting_that_is_not_there_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    folder = written(tmp_path)
    assert replay(tmp_path, "wandb", again=False, changes=("target.mod=online",)) == 2
    assert not (folder.parent / FOLDER).exists()
    assert (folder / RECORD).exists()
