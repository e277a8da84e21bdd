"""Stored trials against stored trials, and what is written about it."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.comparing.command import main
from harness.comparing.finding import Comparison
from harness.record import RunRecord
from harness.stored.trials import write_trial
from tests.comparing.made import record, stored
from tests.harness.facts import quest_arm

WOBBLE = (1.0, 1.01, 0.99, 1.0, 1.01, 0.99, 1.0, 1.01)


def compared(tmp_path: Path, *words: str) -> tuple[int, Comparison]:
    """What comparing the stores `base` and `candidate` gives."""
    out = tmp_path / "out"
    given = [f"base={tmp_path / 'base'}", f"candidate={tmp_path / 'candidate'}", f"out={out}"]
    code = main([*given, f"baselines={tmp_path / 'baselines'}", *words])
    return code, Comparison.model_validate_json((out / "verdict.json").read_text())


def classes(comparison: Comparison) -> dict[str, str]:
    """Class by metric."""
    return {one.metric: one.found for one in comparison.findings}


def rounds(slower: float, *, first: int, step: int) -> list[RunRecord]:
    """Eight runs, `step` minutes apart."""
    return [
        record(slower=slower * wobble, minute=first + step * number)
        for number, wobble in enumerate(WOBBLE)
    ]


def test_trials_that_took_turns_can_show_a_regression(tmp_path: Path) -> None:
    stored(tmp_path / "base", rounds(1.0, first=0, step=2))
    stored(tmp_path / "candidate", rounds(1.2, first=1, step=2))
    code, verdict = compared(tmp_path)
    assert code == 1
    assert classes(verdict)["median_tpot_ms"] == "regression"


def test_trials_one_side_after_the_other_are_no_more_than_suspicious(tmp_path: Path) -> None:
    stored(tmp_path / "base", rounds(1.0, first=0, step=1))
    stored(tmp_path / "candidate", rounds(1.2, first=20, step=1))
    code, verdict = compared(tmp_path)
    assert code == 0
    assert classes(verdict)["median_tpot_ms"] == "suspicious"
    assert compared(tmp_path, "strict=true")[0] == 3


def test_one_trial_a_side_compares_counters_and_answers_but_no_latency(tmp_path: Path) -> None:
    stored(tmp_path / "base", [record()])
    stored(tmp_path / "candidate", [record(slower=3.0, minute=1)])
    code, verdict = compared(tmp_path)
    assert code == 0
    found = classes(verdict)
    assert found["median_tpot_ms"] == "insufficient_n"
    assert found["accuracy"] == found["kv_read_bytes_per_decode_step"] == "unchanged"
    assert compared(tmp_path, "strict=true")[0] == 3


def test_a_trial_a_cell_an_experiment_and_a_record_name_the_same_run(tmp_path: Path) -> None:
    one = record()
    trial = write_trial(one, tmp_path / "base")
    alone = tmp_path / "alone.json"
    alone.write_text(one.model_dump_json())
    paths = [trial, trial / "record.json", trial.parent, trial.parents[1], tmp_path / "base", alone]
    for path in paths:
        out = tmp_path / "out"
        assert main([f"base={path}", f"candidate={alone}", f"out={out}"]) == 0, path
        verdict = Comparison.model_validate_json((out / "verdict.json").read_text())
        assert classes(verdict)["accuracy"] == "unchanged", path


def test_cells_pair_by_their_hash_and_others_are_new_or_removed(tmp_path: Path) -> None:
    stored(tmp_path / "base", [record(digit="1"), record(digit="2")])
    stored(tmp_path / "candidate", [record(digit="2", minute=1), record(digit="3", minute=1)])
    code, verdict = compared(tmp_path)
    assert code == 0
    by_cell = {one.cell[:1]: one.found for one in verdict.findings if one.kind == "run"}
    assert by_cell == {"1": "removed", "3": "new"}
    assert {one.cell[:1] for one in verdict.findings if one.kind == "counter"} == {"2"}
    assert compared(tmp_path, "strict=true")[0] == 3


def test_another_way_to_count_is_for_the_reader_and_not_for_the_exit_code(tmp_path: Path) -> None:
    stored(tmp_path / "base", rounds(1.0, first=0, step=2))
    stored(tmp_path / "candidate", rounds(1.2, first=1, step=2))
    code, verdict = compared(tmp_path, "gated=[p99_tpot_ms]", "shown=[median_tpot_ms]")
    assert code == 0
    (shown,) = [one for one in verdict.findings if one.metric == "median_tpot_ms"]
    assert (shown.found, shown.gated) == ("regression", False)
    assert classes(verdict)["p99_tpot_ms"] == "insufficient_n"


def test_a_rate_that_falls_is_worse(tmp_path: Path) -> None:
    stored(tmp_path / "base", rounds(1.0, first=0, step=2))
    stored(tmp_path / "candidate", rounds(1.25, first=1, step=2))
    code, verdict = compared(tmp_path, "gated=[output_throughput]")
    assert code == 1
    (rate,) = [one for one in verdict.findings if one.metric == "output_throughput"]
    assert rate.change == pytest.approx(0.25, abs=0.01)
    assert rate.base is not None
    assert rate.candidate is not None
    assert rate.candidate / rate.base == pytest.approx(1 / 1.25, abs=0.01)


def test_every_output_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "step.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    stored(tmp_path / "base", rounds(1.0, first=0, step=2))
    stored(tmp_path / "candidate", rounds(1.2, first=1, step=2))
    _, verdict = compared(tmp_path)
    out = tmp_path / "out"
    names = {"verdict.json", "summary.md", "junit.xml", "benchmark.json"}
    assert {path.name for path in out.iterdir()} == names
    assert summary.read_text() == "before\n" + (out / "summary.md").read_text()
    assert "| median_tpot_ms |" in (out / "summary.md").read_text()
    (suite,) = ElementTree.fromstring((out / "junit.xml").read_text())
    assert len(suite) == int(suite.get("tests", "")) == len(verdict.findings)
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    gated = {one.metric for one in verdict.findings if one.gated and one.found == "regression"}
    assert failed == gated == {"median_tpot_ms", "median_ttft_ms"}
    benchmark = json.loads((out / "benchmark.json").read_text())
    assert all({"name", "unit", "value"} <= one.keys() for one in benchmark)
    assert any("median_tpot_ms" in one["name"] for one in benchmark)


def test_a_comparison_is_written_over_an_older_one(tmp_path: Path) -> None:
    stored(tmp_path / "base", [record()])
    stored(tmp_path / "candidate", [record(minute=1)])
    compared(tmp_path)
    first = (tmp_path / "out" / "verdict.json").read_text()
    compared(tmp_path, "alpha=0.01")
    assert (tmp_path / "out" / "verdict.json").read_text() != first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give base=... and candidate=..."),
        (["base=x", "candidate=y", "rounds=3"], "rounds='3'|rounds=3"),
        (["base=x", "candidate=y", "alpha_=0.1"], "alpha_"),
        (["nonsense"], "options are key=value"),
        (["accept", "somewhere"], 'takes a trial and reason="..."'),
        (["track"], "track takes a trial"),
        (["base=x", "candidate=git:HEAD"], "only another git"),
    ],
)
def test_an_error_of_the_user_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("kvloom: ")
    assert errors.count("\n") == 1
    assert any(part in errors for part in said.split("|"))


def test_counters_of_one_side_that_disagree_decide_nothing(tmp_path: Path) -> None:
    base = [record(), record(minute=1, arm={"page_tokens": 32})]
    stored(tmp_path / "base", base)
    stored(tmp_path / "candidate", [record(minute=2), record(minute=3)])
    code, verdict = compared(tmp_path)
    assert code == 0
    (finding,) = [one for one in verdict.findings if one.metric == "read_amplification"]
    assert (finding.found, finding.gated) == ("inconclusive", False)


def test_a_counter_that_moves_at_all_is_seen(tmp_path: Path) -> None:
    stored(tmp_path / "base", [record()])
    peaks = {"hbm": 2**20 + 1, "cpu": 2**22, "index": 65536, "page_tables": 999}
    stored(tmp_path / "candidate", [record(minute=1, arm={"peak_bytes": peaks})])
    code, verdict = compared(tmp_path)
    assert code == 1
    assert classes(verdict)["peak_mem_bytes_hbm"] == "regression"
    assert compared(tmp_path, "counter_tolerance=0.001")[0] == 0
    # The other way round it is a gain.
    swapped = [f"base={tmp_path / 'candidate'}", f"candidate={tmp_path / 'base'}"]
    assert main(swapped) == 0


def test_how_it_ended_is_readable_on_a_narrow_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stored(tmp_path / "base", [record()])
    stored(tmp_path / "candidate", [record(minute=1)])
    compared(tmp_path)
    said = capsys.readouterr().out
    assert said.count("insufficient_n") >= 5
    assert max(map(len, said.split("counters are equal")[0].splitlines()[:5])) <= 60


def test_a_hit_rate_that_falls_is_worse_and_one_that_rises_better(tmp_path: Path) -> None:
    counters = quest_arm().counters
    fewer = replace(counters, decode=replace(counters.decode, pages_hit=200))
    stored(tmp_path / "base", [record()])
    stored(tmp_path / "candidate", [record(minute=1, arm={"counters": fewer})])
    code, verdict = compared(tmp_path)
    (rate,) = [one for one in verdict.findings if one.metric == "kv_cache_hit_rate"]
    assert (code, rate.found) == (1, "regression")
    assert rate.change == pytest.approx(1 / 3)
    assert main([f"base={tmp_path / 'candidate'}", f"candidate={tmp_path / 'base'}"]) == 0


def test_what_a_clock_decides_is_no_counter(tmp_path: Path) -> None:
    counters = quest_arm().counters
    later = replace(counters, decode=replace(counters.decode, exposed_s=9.0))
    stored(tmp_path / "base", [record()])
    stored(tmp_path / "candidate", [record(minute=1, arm={"counters": later})])
    code, verdict = compared(tmp_path)
    assert code == 0
    assert not [one.metric for one in verdict.findings if "exposed" in one.metric]
