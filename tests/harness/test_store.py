"""The store: a trial is there whole or not at all."""

import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from harness.recording import build_record, build_requests
from harness.stored.files import TEMPORARY_PREFIX
from harness.stored.trials import (
    COMPLETE,
    MANIFEST,
    RECORD,
    SAMPLES,
    Damaged,
    Trial,
    read_record,
    scan,
    trials,
    write_trial,
)
from tests.harness.facts import cell, dense_arm, facts, outcome


def test_what_is_written_is_read(tmp_path: Path) -> None:
    given = facts()
    record, requests = build_record(given), build_requests(given.arms)
    folder = write_trial(record, tmp_path / "store", requests, {"log.txt": b"said"})
    assert folder.name == f"20260102T030405Z-quest-{record.run.uid[:8]}"
    (trial,) = trials(tmp_path / "store")
    assert trial.folder == folder
    assert trial.record == record.model_copy(update={"samples": ()})
    assert trial.samples == record.samples
    assert len(trial.samples) == 8
    assert trial.requests == requests
    assert requests[0].token_times_s == pytest.approx((0.1, 0.11, 0.14))
    assert (folder / "log.txt").read_bytes() == b"said"
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_an_empty_or_missing_store_has_no_trials(tmp_path: Path) -> None:
    assert trials(tmp_path) == []
    assert trials(tmp_path / "missing") == []


def test_no_name_can_leave_the_store(tmp_path: Path) -> None:
    away = facts()
    system = away.system.model_copy(update={"algo": "../quest + h2o"})
    record = build_record(replace(away, system=system, cell=cell(experiment="../../up")))
    folder = write_trial(record, tmp_path)
    assert folder.parents[2] == tmp_path
    assert [found.folder for found in scan(tmp_path)] == [folder]


def test_trials_of_one_cell_lie_together_and_of_two_apart(tmp_path: Path) -> None:
    def written(digit: str, second: int) -> Path:
        started = facts().started_at.replace(second=second)
        return write_trial(build_record(facts(cell=cell(digit), started_at=started)), tmp_path)

    first, again, other = written("1", 7), written("1", 8), written("2", 6)
    assert first.parent == again.parent != other.parent
    assert [trial.folder for trial in trials(tmp_path)] == [first, again, other]


def test_a_trial_is_never_written_over(tmp_path: Path) -> None:
    record = build_record(facts())
    before = (write_trial(record, tmp_path) / RECORD).read_bytes()
    with pytest.raises(OSError, match="not empty"):
        write_trial(record.model_copy(update={"baseline": "other"}), tmp_path)
    assert [path.read_bytes() for path in tmp_path.rglob(RECORD)] == [before]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_trial(build_record(facts()), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def cut(folder: Path) -> None:
    path = folder / RECORD
    path.write_bytes(path.read_bytes()[:-100])


def cut_samples(folder: Path) -> None:
    (folder / SAMPLES).write_bytes(b"")


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Another record under sums that fit: what only the schema can see."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / RECORD).read_text())
        change(content)
        text = json.dumps(content).encode()
        (folder / RECORD).write_bytes(text)
        sums = json.loads((folder / MANIFEST).read_text())
        sums[RECORD]["sha256"] = hashlib.sha256(text).hexdigest()
        (folder / MANIFEST).write_text(json.dumps(sums))
        whole = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        (folder / COMPLETE).write_text(whole)

    return damage


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (cut, "record.json is not what was written"),
    "samples gone": (cut_samples, "samples.jsonl is not what was written"),
    "record missing": (without(RECORD), "record.json is missing"),
    "not complete": (without(COMPLETE), "COMPLETE is missing"),
    "no manifest": (without(MANIFEST), "manifest.json is missing"),
    "manifest of another": (lambda one: (one / MANIFEST).write_text("{}"), "COMPLETE names"),
    "newer": (rewritten(lambda one: one.update(schema_version=99)), "schema_version"),
    "foreign": (rewritten(lambda one: one.clear()), "no record"),
    "not a number": (rewritten(lambda one: one["run"].update(duration_s=math.nan)), "duration_s"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_named_and_hides_nothing_else(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    good, bad = (write_trial(build_record(facts()), tmp_path) for _ in range(2))
    damage(bad)
    found = list(scan(tmp_path))
    assert [one.folder for one in found if isinstance(one, Damaged)] == [bad]
    assert [reason in one.reason for one in found if isinstance(one, Damaged)] == [True]
    assert [trial.folder for trial in trials(tmp_path)] == [good]


def test_a_write_that_goes_on_is_no_trial(tmp_path: Path) -> None:
    folder = write_trial(build_record(facts()), tmp_path)
    shutil.copytree(folder, folder.with_name(f"{TEMPORARY_PREFIX}1-abcd"))
    assert [found.folder for found in scan(tmp_path)] == [folder]


def test_published_records_of_the_first_version_are_read() -> None:
    for path in sorted(Path("results/published").glob("ruler_*.json")):
        record = read_record(path)
        assert record.schema_version == 1
        assert record.cell is None
        assert record.samples


def test_a_killed_writer_leaves_only_whole_trials(tmp_path: Path) -> None:
    earlier = write_trial(build_record(facts()), tmp_path) / RECORD
    before, rng, num_interrupted = earlier.read_bytes(), random.Random(7), 0
    for _ in range(8):
        told = kill_while_writing(tmp_path, rng)
        found = list(scan(tmp_path))
        assert all(isinstance(one, Trial) for one in found)
        assert told <= {one.folder for one in found}
        num_interrupted += clear_temporaries(tmp_path)
        assert earlier.read_bytes() == before
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
    wait_for(lambda: any(root.rglob(f"{TEMPORARY_PREFIX}{child.pid}-*")))
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
        tell.send(write_trial(record, root))


def clear_temporaries(root: Path) -> int:
    """Remove what was left of interrupted writes; how many there were."""
    left = list(root.rglob(f"{TEMPORARY_PREFIX}*"))
    for folder in left:
        shutil.rmtree(folder)
    return len(left)


def wait_for(condition: Callable[[], bool]) -> None:
    """Ask again and again, half a minute at most."""
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
