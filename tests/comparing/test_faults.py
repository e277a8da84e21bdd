"""Faults, injected: each ends in what it is, never in a pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.comparing.command import main
from harness.comparing.finding import Comparison
from harness.record import RunRecord
from harness.stored.trials import read_trial, write_trial
from memory_tiers.counters import Counters, PhaseCounters
from tests.comparing.made import NUM_REQUESTS, answer, record
from tests.harness.facts import quest_arm


def compared(tmp_path: Path, base: Path, candidate: Path) -> tuple[int, Comparison]:
    out = tmp_path / "out"
    code = main(
        [f"base={base}", f"candidate={candidate}", f"out={out}", f"baselines={tmp_path / 'none'}"]
    )
    return code, Comparison.model_validate_json((out / "verdict.json").read_text())


def against(tmp_path: Path, candidate: RunRecord) -> tuple[int, Comparison]:
    """A good run compared with this one."""
    base = write_trial(record(), tmp_path / "base")
    return compared(tmp_path, base, write_trial(candidate, tmp_path / "candidate"))


def details(comparison: Comparison, found: str) -> str:
    return "; ".join(one.detail for one in comparison.findings if one.found == found)


def without_tokens() -> RunRecord:
    """Every request is answered at once, with nothing."""
    silent = tuple(answer(f"r{index}", num_output_tokens=0) for index in range(NUM_REQUESTS))
    return record(arm={"outcomes": silent}, minute=1)


def falling() -> RunRecord:
    """A count that began anew between two looks."""
    decode = replace(quest_arm().counters.decode, bytes_read=-4096)
    return record(arm={"counters": Counters(decode=decode)}, minute=1)


def restarted_pair() -> RunRecord:
    """The same in bytes that moved between two tiers."""
    moved = PhaseCounters(steps=8)
    moved.bytes_moved["cpu->hbm"] = -1
    return record(arm={"counters": Counters(decode=moved)}, minute=1)


def other_references() -> RunRecord:
    """The data on the disk changed under the same ids."""
    uids = [f"r{index}" for index in range(NUM_REQUESTS)]
    return record(references=dict.fromkeys(uids, ("1234",)), minute=1)


def other_prompts() -> RunRecord:
    longer = tuple(answer(f"r{index}", num_prompt_tokens=5000) for index in range(NUM_REQUESTS))
    return record(arm={"outcomes": longer}, minute=1)


def other_ids() -> RunRecord:
    return record(scores=(1.0,) * (NUM_REQUESTS + 1), minute=1)


def other_benchmark() -> RunRecord:
    one = record(minute=1)
    assert one.cell is not None
    return one.model_copy(update={"cell": one.cell.model_copy(update={"benchmark": "e" * 64})})


def other_weights() -> RunRecord:
    one = record(minute=1)
    model = one.system.model.model_copy(update={"sha256": "e" * 64})
    return one.model_copy(update={"system": one.system.model_copy(update={"model": model})})


def without_weights_hash() -> RunRecord:
    one = record(minute=1)
    model = one.system.model.model_copy(update={"sha256": None})
    return one.model_copy(update={"system": one.system.model_copy(update={"model": model})})


def without_cell() -> RunRecord:
    return record(minute=1).model_copy(update={"cell": None})


NOT_COMPARABLE: dict[str, tuple[Callable[[], RunRecord], str]] = {
    "no tokens (5)": (without_tokens, "no output token was counted"),
    "counter reset (13)": (falling, "counters went backwards: decode.bytes_read"),
    "counter reset by tier (13)": (restarted_pair, "counters went backwards: decode.bytes_moved"),
    "other references (15)": (other_references, "another prompt or reference under the same id"),
    "other prompts (15)": (other_prompts, "their prompts have other lengths"),
    "other ids (15)": (other_ids, "the hash of their ids differs"),
    "other benchmark (15)": (other_benchmark, "another benchmark"),
    "other weights": (other_weights, "another model"),
    "no hash of weights": (without_weights_hash, "a model without a hash"),
    "no cell": (without_cell, "a record without a cell"),
    "other hardware (17)": (lambda: record(fingerprint="9", minute=1), "the hardware differs"),
}


@pytest.mark.parametrize(("make", "reason"), NOT_COMPARABLE.values(), ids=NOT_COMPARABLE)
def test_what_does_not_compare_never_passes(
    tmp_path: Path, make: Callable[[], RunRecord], reason: str
) -> None:
    code, verdict = against(tmp_path, make())
    assert code == 3
    assert reason in details(verdict, "not_comparable")


def test_a_good_run_against_itself_passes(tmp_path: Path) -> None:
    """Without this, all of the above could fail for another reason."""
    code, verdict = against(tmp_path, record(minute=1))
    assert code == 0
    assert details(verdict, "not_comparable") == ""


@pytest.mark.parametrize("status", ["oom", "crash", "timeout", "failed", "interrupted"])
def test_a_run_that_broke_off_is_an_error_whatever_it_measured(tmp_path: Path, status: str) -> None:
    """4, 6: a dead process is no 0 ms, and what ran out of memory is not completed."""
    code, verdict = against(tmp_path, record(status=status, slower=0.1, minute=1))
    assert code == 4
    assert f"the run ended as {status}" in details(verdict, "errored")
    assert {one.kind for one in verdict.findings} == {"run"}


def test_a_run_that_broke_off_is_never_averaged_in(tmp_path: Path) -> None:
    for minute in range(12):
        write_trial(record(minute=minute), tmp_path / ("base", "candidate")[minute % 2])
    write_trial(record(slower=50, status="oom", minute=12), tmp_path / "base")
    write_trial(record(slower=50, status="oom", minute=13), tmp_path / "candidate")
    code, verdict = compared(tmp_path, tmp_path / "base", tmp_path / "candidate")
    (tpot,) = [one for one in verdict.findings if one.metric == "median_tpot_ms"]
    assert (tpot.n, tpot.candidate) == (6, pytest.approx(10))
    assert tpot.found == "unchanged"
    assert code == 4
    assert "the run ended as oom" in details(verdict, "errored")


def test_a_reset_counter_is_not_observed_rather_than_negative(tmp_path: Path) -> None:
    _, verdict = against(tmp_path, falling())
    counted = [one for one in verdict.findings if one.kind == "counter"]
    assert counted
    assert {one.candidate for one in counted} == {None}


def missing(folder: Path) -> Path:
    return folder / "nowhere"


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def truncated(folder: Path) -> Path:
    trial = write_trial(record(), folder / "cut")
    path = trial / "record.json"
    path.write_bytes(path.read_bytes()[:-100])
    return trial


def not_complete(folder: Path) -> Path:
    trial = write_trial(record(), folder / "open")
    (trial / "COMPLETE").unlink()
    return trial


def foreign(folder: Path) -> Path:
    (folder / "foreign.json").write_text('{"tokens_per_second": 2000000}')
    return folder / "foreign.json"


def not_json(folder: Path) -> Path:
    (folder / "bytes.json").write_bytes(b"\xff\x00")
    return folder / "bytes.json"


@pytest.mark.parametrize("make", [missing, empty, truncated, not_complete, foreign, not_json])
def test_a_baseline_that_cannot_be_read_never_passes(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    """7, 17, 18: missing, damaged, foreign, or nothing there."""
    good, bad = write_trial(record(), tmp_path / "good"), make(tmp_path)
    for base, candidate in ((bad, good), (good, bad)):
        code, verdict = compared(tmp_path, base, candidate)
        assert code == 3
        assert [one.found for one in verdict.findings] == ["not_comparable"]


def test_a_damaged_trial_beside_good_ones_is_told_and_stops_nothing(tmp_path: Path) -> None:
    good = write_trial(record(), tmp_path / "good")
    store = truncated(tmp_path).parents[2]
    write_trial(record(minute=1), store)
    code, verdict = compared(tmp_path, store, good)
    assert code == 0
    assert "record.json is not what was written" in details(verdict, "not_comparable")
    assert any(one.kind == "counter" for one in verdict.findings)
    assert main([f"base={store}", f"candidate={good}", "strict=true"]) == 3


def test_a_damaged_line_of_accepted_baselines_is_named(tmp_path: Path) -> None:
    (tmp_path / "accepted.jsonl").write_text("{}\n")
    words = ["gate", f"baselines={tmp_path}", f"out={tmp_path / 'out'}"]
    trial = write_trial(record(), tmp_path / "runs")
    assert main(words, lambda *_: read_trial(trial), tmp_path) == 3
    verdict = Comparison.model_validate_json((tmp_path / "out" / "verdict.json").read_text())
    assert "accepted.jsonl:1 is damaged" in verdict.findings[0].detail
