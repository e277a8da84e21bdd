"""A run that is killed goes on behind the requests that every arm has answered."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.metrics import served_seconds
from harness.outcome import Likelihood
from harness.resume import Counted, Resumed, Round, resumed
from harness.stored.unfinished import Unfinished, open_unfinished
from memory_tiers.counters import PhaseCounters
from tests.harness.cli_runs import run
from tests.harness.facts import cell, dense_arm, outcome, quest_arm

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("task.num_samples=4", "task.length=512", "load.warmup_tokens=64", "tier=hbm+cpu",
         "tier.hbm.size=0.5", "load=batch", "backend.max_batch=2")  # fmt: skip
PATH_OF = "*/*/.unfinished.jsonl"
# What requests and algorithms decide; hits and moves are also of what the fast tier still held.
DECIDED = ("steps", "rows", "pages_read", "bytes_read", "slots_wanted", "slots_context",
           "pages_wanted", "pages_mandatory")  # fmt: skip


def round_of(number: int, *, start_s: float = 0.0) -> Round:
    """Two requests through both arms, a second each."""
    uids = (f"{number}-a", f"{number}-b")
    arms = ("dense", "quest")
    times = {uid: start_s + at for at, uid in enumerate(uids)}
    outcomes = tuple(
        outcome(uid, arm=arm, started_s=times[uid], token_times_s=(times[uid] + 0.5,) * 3)
        for arm in arms
        for uid in uids
    )
    counted = Counted(
        phases={"decode": PhaseCounters(steps=number, bytes_moved=Counter({"cpu->hbm": 7}))}
    )
    return Round(outcomes=outcomes, counted=dict.fromkeys(arms, counted))


def opened(root: Path, *, fresh: bool = False, **changes: Any) -> Resumed:
    given = {"uids": ["0-a", "0-b"], "arms": ["dense", "quest"], "at_once": 2} | changes
    return resumed(root, given.pop("cell", cell()), fresh=fresh, **given)


def killed_after(rounds: int, results: Path) -> list[str]:
    """A run in a process of its own, killed while it measures; the lines that it left."""
    command = [sys.executable, "harness/run.py", *WORDS, f"results={results}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 120
    while True:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline_s
        files = list(results.glob(PATH_OF))
        lines = files[0].read_text().splitlines() if files else []
        if len(lines) > rounds:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return one_path(results).read_text().split("\n")[1:-1]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_record_and_measures_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    lines = killed_after(2, tmp_path / "killed")
    assert 2 <= len(lines) < 6, "it was not killed in the middle"
    num_kept = len({one["uid"] for line in lines for one in json.loads(line)["outcomes"]})
    (path,) = (tmp_path / "killed").glob(PATH_OF)
    with path.open("a") as file:
        file.write(lines[0][: len(lines[0]) // 2])
    code, (record,) = run(WORDS, tmp_path / "killed", monkeypatch)
    said = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert record["run"]["resumed"] == num_kept
    assert f"resumed: {num_kept} of 12 requests are measured, the last line was torn" in said
    assert f"12 of 12 requests per arm, {num_kept} of them by a process that was killed" in said
    assert not path.exists()
    _, (whole,) = run(WORDS, tmp_path / "whole", monkeypatch)
    assert whole["run"]["resumed"] == 0
    assert [untimed(one) for one in record["samples"]] == [untimed(one) for one in whole["samples"]]
    for name, arm in whole["arms"].items():
        ours = record["arms"][name]
        assert ours["accuracy"] == arm["accuracy"]
        # Steps, rows and bytes of both processes: what was measured twice would count twice.
        for phase, counts in arm["counters"].items():
            resumed_counts = ours["counters"][phase]
            assert [resumed_counts[key] for key in DECIDED] == [counts[key] for key in DECIDED]
            assert resumed_counts["bytes_moved"] == pytest.approx(counts["bytes_moved"], rel=0.1)
        assert ours["metrics"]["achieved_sparsity"] == arm["metrics"]["achieved_sparsity"]
        assert ours["metrics"]["median_tpot_ms"]["n"] == arm["metrics"]["median_tpot_ms"]["n"] == 12


def untimed(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sample.items() if name not in ("ttft_ms", "tpot_ms")}


def test_what_was_measured_is_read_as_it_was(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert (first.num_rounds, first.said) == (0, None)
    odd = Likelihood(-math.inf, is_greedy=False)
    wanted = round_of(3)
    wanted = wanted.model_copy(
        update={"outcomes": (replace(wanted.outcomes[0], likelihood=odd), *wanted.outcomes[1:])}
    )
    assert first.file is not None
    first.file.append(wanted.model_dump_json().encode())
    first.close()
    again = opened(tmp_path)
    assert again.rounds == [wanted]
    assert again.rounds[0].counted["quest"].phases["decode"].bytes_moved["hbm->cpu"] == 0
    assert again.num_requests == 2
    again.forget()
    again.close()
    assert opened(tmp_path).num_rounds == 0


@pytest.mark.parametrize(
    "change",
    [
        {"cell": cell().model_copy(update={"code": "e" * 64})},
        {"uids": ["0-a", "0-c"]},
        {"at_once": 4},
        {"arms": ["dense", "snapkv"]},
        {"fresh": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_was_measured_otherwise_is_not_used(change: dict[str, Any], tmp_path: Path) -> None:
    fill(tmp_path, 1)
    assert kept(tmp_path) == 1
    other = opened(tmp_path, **change)
    assert other.num_rounds == 0
    other.close()
    assert kept(tmp_path) == 0, "it began anew"


def fill(root: Path, num_rounds: int) -> Path:
    """A file of so many rounds."""
    one = opened(root)
    assert one.file is not None
    for number in range(num_rounds):
        one.file.append(round_of(number).model_dump_json().encode())
    one.close()
    return one_path(root)


def one_path(root: Path) -> Path:
    (path,) = root.glob(PATH_OF)
    return path


def kept(root: Path) -> int:
    one = opened(root)
    one.close()
    return one.num_rounds


def test_a_file_that_is_cut_anywhere_keeps_its_whole_rounds(tmp_path: Path) -> None:
    path = fill(tmp_path, 3)
    content = path.read_bytes()
    ends = [number + 1 for number, byte in enumerate(content) if byte == 10]
    for size in (*ends, ends[0] + 5, ends[1] - 1, ends[1] + 1, ends[2] + 99, ends[3] - 1):
        path.write_bytes(content[:size])
        one = opened(tmp_path)
        assert one.num_rounds == sum(end <= size for end in ends[1:])
        assert ("torn" in (one.said or "")) == (size not in ends)
        one.close()
        assert path.read_bytes() == content[: max(end for end in ends if end <= size)]


def test_a_line_that_is_damaged_ends_what_is_used(tmp_path: Path) -> None:
    path = fill(tmp_path, 3)
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b'"score"', b'"scare"')
    path.write_bytes(b"\n".join(lines))
    one = opened(tmp_path)
    assert one.num_rounds == 1
    assert "torn" in str(one.said)
    one.close()
    assert path.read_bytes() == b"\n".join([*lines[:2], b""])


def test_one_process_at_a_time_keeps_what_it_measures(tmp_path: Path) -> None:
    one = opened(tmp_path)
    other = opened(tmp_path)
    assert other.file is None
    assert "another process" in str(other.said)
    one.close()
    assert opened(tmp_path).file is not None


def test_a_round_that_lost_a_request_is_not_kept_nor_what_is_behind_it(tmp_path: Path) -> None:
    one = opened(tmp_path)
    good, bad = round_of(0).outcomes, [outcome("x", error="lost", token_times_s=())]
    one.add(good, {})
    one.add(bad, {})
    one.add(round_of(2).outcomes, {})
    assert kept(tmp_path) == 1


def test_times_of_other_clocks_are_laid_end_to_end() -> None:
    rounds = [round_of(0, start_s=900.0), round_of(1, start_s=3.0)]
    outcomes = Resumed(rounds).outcomes(50.0)
    assert [one.uid for one in outcomes] == [x.uid for one in rounds for x in one.outcomes]
    assert (outcomes[0].started_s, outcomes[4].started_s) == (47.0, 48.5)
    assert max(one.token_times_s[-1] for one in outcomes) == 50.0
    dense = [one for one in outcomes if one.arm == "dense"]
    assert served_seconds(dense) == pytest.approx(2.0)
    assert [one.token_times_s[0] - one.started_s for one in outcomes] == [0.5] * 8


def test_counts_of_two_processes_add_up() -> None:
    one, other = dense_arm().counters.decode, quest_arm().counters.decode
    both = one.plus(other)
    assert (both.steps, both.pages_wanted) == (16, 1400)
    assert both.bytes_moved == other.bytes_moved
    assert both.transfer_s["hbm->cpu"] == 0.25
    assert PhaseCounters().plus(other) == other


def test_an_unfinished_file_lies_where_no_reader_of_the_store_looks(tmp_path: Path) -> None:
    path = fill(tmp_path, 1)
    file = open_unfinished(path, b"another", fresh=False)
    assert isinstance(file, Unfinished)
    assert file.lines == (b"another",)
    file.close()
    assert not list(tmp_path.glob("*/[!.]*/[!.]*"))
