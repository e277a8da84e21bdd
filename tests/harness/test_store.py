"""The store: a record is there whole or not at all."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.record import RunRecord
from harness.recording import build_record
from harness.store import RECORD_NAME, TEMPORARY_PREFIX, read_records, write_record
from tests.harness.facts import dense_arm, facts, outcome

ROOT = Path(__file__).parents[2]

# Writes large records until it is killed, telling each path once it is final.
WRITER = """
import sys
from pathlib import Path
from harness.recording import build_record
from harness.store import write_record
from tests.harness.facts import dense_arm, facts, outcome

answers = tuple(outcome(f"r{index}", answer="x" * 2000) for index in range(1000))
arms = (dense_arm(outcomes=answers),)
planned = tuple(answer.uid for answer in answers)
while True:
    record = build_record(facts(arms=arms, planned_uids=planned))
    print("writing", flush=True)
    print(write_record(record, Path(sys.argv[1])), flush=True)
"""


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
    for _ in range(4):
        told = kill_while_writing(tmp_path, rng)
        final = {path for path in tmp_path.glob(f"[!.]*/{RECORD_NAME}")}
        assert told <= final
        for path in final:
            RunRecord.model_validate_json(path.read_bytes())
        assert all((folder / RECORD_NAME).exists() for folder in tmp_path.glob("[!.]*"))
        num_interrupted += len(list(tmp_path.glob(f"{TEMPORARY_PREFIX}*")))
        assert earlier.read_bytes() == before
        assert len(list(read_records(tmp_path))) == len(final)
    assert num_interrupted, "no kill fell into a write: the test has shown nothing"


def kill_while_writing(root: Path, rng: random.Random) -> set[Path]:
    """SIGKILL a writer at a random moment of its writes; the records it had told to be final."""
    command = [sys.executable, "-c", WRITER, str(root)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(rng.choice((1, 3)))]
    assert lines[-1] == "writing\n", lines
    # The temporary folder first appears when the text is ready: from there on, bytes are written.
    while not any(root.glob(f"{TEMPORARY_PREFIX}{child.pid}-*")):
        assert child.poll() is None
    time.sleep(rng.uniform(0, 0.004))
    child.send_signal(signal.SIGKILL)
    lines += child.communicate()[0].splitlines(keepends=True)
    # A last line may be cut short by the kill.
    whole = [line.strip() for line in lines if line.endswith("\n")]
    return {Path(line) for line in whole if line != "writing"}
