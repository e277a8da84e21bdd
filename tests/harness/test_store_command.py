"""The store by its command: checked, indexed, cleared, whatever lies in it."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.recording import build_record, build_requests
from harness.sources import measured_sha256, measuring_sha256
from harness.stored.command import main
from harness.stored.files import TEMPORARY_PREFIX, temporary_name
from harness.stored.index import INDEX, read_index, rebuild
from harness.stored.leftovers import collect
from harness.stored.locks import LOCK, cell_lock
from harness.stored.quarantine import QUARANTINE, REASON
from harness.stored.trials import RECORD, trials, write_trial
from harness.stored.unfinished import unfinished_name
from tests.harness.facts import cell, facts
from tests.harness.test_store import DAMAGE

ROOT = Path(__file__).resolve().parents[2]
DEAD = 2**22 + 1


def written(root: Path, second: int = 5, **changes: Any) -> Path:
    given = facts(started_at=facts().started_at.replace(second=second), **changes)
    return write_trial(build_record(given), root, build_requests(given.arms))


def test_a_clean_store_is_told_of_by_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path)
    written(tmp_path, cell=cell(experiment="grid"))
    written(tmp_path, cell=cell(experiment="grid"), status="timeout")
    assert main(["check", "--root", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["experiment", "trials", "ok", "timeout", "damaged"]
    assert lines[2:] == [["grid", "2", "1", "1", "0"], ["runs", "1", "1", "0", "0"]]


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_damaged_breaks_no_command_and_is_put_away_when_asked(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, reason = DAMAGE[kind]
    good, bad = written(tmp_path, 5), written(tmp_path, 6)
    damage(bad)
    assert main(["index", "--root", str(tmp_path)]) == 0
    rows = {tmp_path / row.folder: row for row in read_index(tmp_path)}
    assert rows[good].damage is None
    assert rows[good].tpot_ratio == pytest.approx(0.5)
    # An index reads headers: what lies beside a record is for a check to see.
    assert (rows[bad].damage is None) == (kind == "samples gone")
    assert main(["check", "--root", str(tmp_path)]) == 4
    assert bad.exists()
    assert main(["check", "--root", str(tmp_path), "--quarantine"]) == 4
    assert not bad.exists()
    away = tmp_path / QUARANTINE / bad.relative_to(tmp_path)
    assert reason in (away / REASON).read_text()
    assert main(["check", "--root", str(tmp_path)]) == 0
    assert "1 in quarantine" in capsys.readouterr().out
    assert [trial.folder for trial in trials(tmp_path)] == [good]


def test_a_copy_of_a_trial_counts_for_nothing(tmp_path: Path) -> None:
    good = written(tmp_path)
    shutil.copytree(good, good.with_name("copy"))
    shutil.copytree(good, good.parent.with_name("f" * 16) / good.name)
    assert rebuild(tmp_path).num_damaged == 2
    assert [trial.folder for trial in trials(tmp_path)] == [good]
    shutil.copytree(tmp_path / "runs", tmp_path / "saved")
    assert main(["check", "--root", str(tmp_path), "--quarantine"]) == 4
    assert [trial.folder for trial in trials(tmp_path)] == [good]


def test_an_index_reads_only_what_is_new(tmp_path: Path) -> None:
    for second in range(3):
        written(tmp_path, second)
    first = rebuild(tmp_path)
    text = (tmp_path / INDEX).read_bytes()
    assert (first.num_rows, first.num_read) == (3, 3)
    assert rebuild(tmp_path).num_read == 0
    assert (tmp_path / INDEX).read_bytes() == text
    shutil.rmtree(written(tmp_path, 9))
    written(tmp_path, 10)
    again = rebuild(tmp_path)
    assert (again.num_rows, again.num_read) == (4, 1)


@pytest.mark.parametrize("junk", [b"", b"{}\n", b"\xff\x00", b'{"folder": NaN}\n[1'])
def test_an_index_is_disposable(tmp_path: Path, junk: bytes) -> None:
    written(tmp_path)
    rebuild(tmp_path)
    text = (tmp_path / INDEX).read_bytes()
    (tmp_path / INDEX).write_bytes(junk)
    assert rebuild(tmp_path).num_rows == 1
    assert (tmp_path / INDEX).read_bytes() == text


def test_indexing_takes_less_than_a_millisecond_of_processor_a_trial(tmp_path: Path) -> None:
    first = written(tmp_path)
    record, num = json.loads((first / RECORD).read_text()), 1000
    assert len(json.dumps(record)) > 10_000
    for number in range(num):
        shutil.copytree(first, first.with_name(f"{number}-{first.name}"))
    before_s = processor_s()
    indexed = rebuild(tmp_path)
    assert (indexed.num_rows, indexed.num_damaged) == (num + 1, 0)
    # 10,000 records are to take 5 s on two cores: this is the same with a half for the machine.
    assert processor_s() - before_s < num * 1e-3


def processor_s() -> float:
    """Of this process and those children that have ended: no matter what else the machine does."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def test_what_dead_writers_left_is_removed_and_what_is_alive_is_not(tmp_path: Path) -> None:
    folder = written(tmp_path)
    mine = temporary_name(folder.parent)
    shutil.copytree(folder, mine)
    dead = [place / f"{TEMPORARY_PREFIX}{DEAD}-0123abcd" for place in folder.parents[:3]]
    for one in dead:
        one.write_text("half")
    foreign = tmp_path / f"{TEMPORARY_PREFIX}of-somebody"
    foreign.touch()
    assert collect(tmp_path, idle_s=3600).temporaries == 0
    assert collect(tmp_path, idle_s=0).temporaries == 3
    assert mine.exists()
    assert foreign.exists()
    assert not any(one.exists() for one in dead)
    # A later process of the same number is not its writer.
    os.utime(mine, (1, 1))
    for inner in mine.rglob("*"):
        os.utime(inner, (1, 1))
    assert collect(tmp_path, idle_s=0).temporaries == 1
    assert [trial.folder for trial in trials(tmp_path)] == [folder]


def test_what_an_unfinished_run_measured_stays_while_the_code_is_the_same(tmp_path: Path) -> None:
    folder = written(tmp_path).parent
    ours, theirs, broken = (folder / unfinished_name(number) for number in (None, 1, 2))
    ours.write_text(json.dumps({"code": [measured_sha256(), measuring_sha256()]}) + "\nmore\n")
    theirs.write_text(json.dumps({"code": ["other", measuring_sha256()]}) + "\n")
    broken.write_text("{")
    assert collect(tmp_path).unfinished == 2
    assert (ours.exists(), theirs.exists(), broken.exists()) == (True, False, False)
    assert len(trials(tmp_path)) == 1


def test_a_cell_at_work_is_not_touched(tmp_path: Path) -> None:
    folder = written(tmp_path)
    left = folder.parent / f"{TEMPORARY_PREFIX}{DEAD}-0123abcd"
    left.touch()
    with cell_lock(folder.parent, wait=False):
        assert collect(tmp_path, keep=1, idle_s=0).temporaries == 0
        assert left.exists()
        assert (folder.parent / LOCK).exists()
        with cell_lock(folder.parent, wait=False) as is_ours:
            assert not is_ours
    removed = collect(tmp_path, idle_s=0)
    assert (removed.temporaries, removed.locks) == (1, 1)
    assert sorted(one.name for one in folder.parent.iterdir()) == [folder.name]


def test_of_each_cell_and_code_the_newest_good_trials_stay(tmp_path: Path) -> None:
    good = [written(tmp_path, second) for second in range(3)]
    failed = written(tmp_path, 7, status="failed")
    other = written(tmp_path, 1, cell=cell("1"))
    changed = cell().model_copy(update={"code": "d" * 64})
    code = written(tmp_path, 0, cell=changed)
    assert main(["gc", "--root", str(tmp_path), "--keep", "2"]) == 0
    assert {one.folder for one in trials(tmp_path)} == {*good[1:], other, code}
    assert not failed.exists()
    assert collect(tmp_path, keep=1).trials == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "--root", "no/such"), "no such folder"),
        (("gc", "--keep", "0"), "no number from 1 on"),
        (("burn",), "invalid choice"),
        ((), "required"),
    ],
)
def test_what_is_off_is_said_in_one_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(arguments)
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err
    assert code == 2
    assert words in said
    assert said.startswith("kvloom: ")
    assert said.count("\n") == 1


def test_help_does_not_wait_for_torch() -> None:
    script = "import sys, runpy; sys.argv = ['harness/store.py', '--help']; sys.path[0:0] = ['.']\n"
    script += "try: runpy.run_path('harness/store.py', run_name='__main__')\n"
    script += "except SystemExit as e: assert not e.code\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "check|index|gc" in done.stdout
    assert done.stdout.endswith("False\n")


def test_a_lock_that_was_removed_holds_nobody_up(tmp_path: Path) -> None:
    with cell_lock(tmp_path, wait=False) as first:
        assert first
        (tmp_path / LOCK).unlink()
        started_s = time.monotonic()
        with cell_lock(tmp_path, wait=False) as second:
            assert second
        assert time.monotonic() - started_s < 5


def test_a_store_of_nothing_is_clean(tmp_path: Path) -> None:
    assert main(["check", "--root", str(tmp_path)]) == 0
    assert main(["index", "--root", str(tmp_path)]) == 0
    assert (tmp_path / INDEX).read_bytes() == b""
