"""The store: a record is there whole or not at all."""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from harness.record import RunRecord
from harness.recording import build_record
from harness.store import RECORD_NAME, TEMPORARY_PREFIX, read_records, write_record
from tests.harness.facts import dense_arm, facts, outcome


def test_what_is_written_is_read(tmp_path: Path) -> None:
    record = build_record(facts())
    path = write_record(record, tmp_path / "runs")
    assert path.name == RECORD_NAME
    assert path.parent.name == f"20260102T030405Z-quest-{record.run.uid[:8]}"
    assert list(read_records(tmp_path / "runs")) == [record]
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == [path.parent.name]


def test_an_empty_or_missing_store_has_no_records(tmp_path: Path) -> None:
    assert list(read_records(tmp_path)) == []
    assert list(read_records(tmp_path / "missing")) == []


def test_a_name_of_an_algorithm_cannot_leave_the_store(tmp_path: Path) -> None:
    away = facts()
    system = away.system.model_copy(update={"algo": "../quest + h2o"})
    path = write_record(build_record(facts(system=system)), tmp_path)
    assert path.parent.parent == tmp_path


def test_a_record_is_never_written_over(tmp_path: Path) -> None:
    record = build_record(facts())
    before = write_record(record, tmp_path).read_bytes()
    with pytest.raises(OSError, match="not empty"):
        write_record(record.model_copy(update={"baseline": "other"}), tmp_path)
    assert [path.read_bytes() for path in tmp_path.rglob(RECORD_NAME)] == [before]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_record(build_record(facts()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_record_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = write_record(build_record(facts()), tmp_path)
    text = good.read_text()
    damaged = {"truncated": text[: len(text) // 2], "empty": "", "foreign": "{}"}
    for name, content in damaged.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORD_NAME).write_text(content)
    temporary = tmp_path / f"{TEMPORARY_PREFIX}1-abcd"
    temporary.mkdir()
    (temporary / RECORD_NAME).write_text(text)
    assert len(list(read_records(tmp_path))) == 1
    assert all(name in caplog.text for name in damaged)
    assert TEMPORARY_PREFIX not in caplog.text


def test_records_come_oldest_first(tmp_path: Path) -> None:
    early, late = facts(), facts(ended_at=facts().ended_at.replace(year=2027))
    late = facts(
        started_at=late.ended_at,
        ended_at=late.ended_at,
        arms=(dense_arm(outcomes=(outcome("r0"),)),),
    )
    written = [build_record(late), build_record(early)]
    for record in written:
        write_record(record, tmp_path)
    assert list(read_records(tmp_path)) == written[::-1]


def test_a_killed_writer_leaves_only_whole_records(tmp_path: Path) -> None:
    earlier = write_record(build_record(facts()), tmp_path)
    before, rng, num_interrupted = earlier.read_bytes(), random.Random(7), 0
    for _ in range(8):
        told = kill_while_writing(tmp_path, rng)
        folders = set(tmp_path.glob("[!.]*"))
        assert told <= folders
        for folder in folders:
            RunRecord.model_validate_json((folder / RECORD_NAME).read_bytes())
        num_interrupted += clear_temporaries(tmp_path)
        assert earlier.read_bytes() == before
        assert len(list(read_records(tmp_path))) == len(folders)
    assert num_interrupted, "no kill fell into a write: the test has shown nothing"


def kill_while_writing(root: Path, rng: random.Random) -> set[Path]:
    """SIGKILL a writer at a random moment of a write; the folders it had told to be final."""
    # Forked: a fresh interpreter would import torch for seconds before its first write.
    context = multiprocessing.get_context("fork")
    told, tell = context.Pipe(duplex=False)
    child = context.Process(target=write_large_records, args=(root, tell))
    child.start()
    tell.close()
    final = {told.recv() for _ in range(rng.choice((0, 1)))}
    # A temporary folder appears when a text is ready: from there on, bytes are written.
    wait_for(lambda: any(root.glob(f"{TEMPORARY_PREFIX}{child.pid}-*")))
    time.sleep(rng.uniform(0, 0.003))
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with contextlib.suppress(EOFError):
        while True:
            final.add(told.recv())
    return final


def write_large_records(root: Path, tell: Connection) -> None:
    """Write records of megabytes until killed, telling each folder once it is final."""
    answers = tuple(outcome(f"r{index}", answer="x" * 3000) for index in range(1000))
    arms, planned = (dense_arm(outcomes=answers),), tuple(answer.uid for answer in answers)
    while True:
        record = build_record(facts(arms=arms, planned_uids=planned))
        tell.send(write_record(record, root).parent)


def clear_temporaries(root: Path) -> int:
    """Remove what was left of interrupted writes; how many there were."""
    left = list(root.glob(f"{TEMPORARY_PREFIX}*"))
    for folder in left:
        shutil.rmtree(folder)
    return len(left)


def wait_for(condition: Callable[[], bool]) -> None:
    """Ask again and again, half a minute at most."""
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
