"""Fidelity from the command line to the record, the table and the picture."""

import io
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from harness import cell
from harness.fidelity_picture import pictures
from harness.outcome import Probed
from harness.record import RunRecord
from harness.recording import build_record
from harness.table import render
from memory_tiers.trace import Trace
from tests.harness.cli_runs import SMALL, run
from tests.harness.facts import dense_arm, facts, quest_arm

TIGHT = (*SMALL, "algo.retrieve.budget_tokens=64")
# Two sequences and steps, one layer, two heads.
RECALLED_NLH = np.array([[[1.0, 0.5]], [[0.25, 0.25]]], dtype=np.float32)
PROBED = Probed(
    every=3,
    uids=("r0", "r2"),
    differing=(),
    recalled_NLH=RECALLED_NLH,
    error_NLH=1 - RECALLED_NLH,
)


def record_of(probed: Probed) -> RunRecord:
    return build_record(facts(arms=(dense_arm(), replace(quest_arm(), probed=probed))))


def rendered(record: RunRecord) -> str:
    file = io.StringIO()
    render(record, Console(file=file, width=80))
    return " ".join(file.getvalue().split())


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    """Counts and peaks by arm, without seconds."""
    return {
        name: (
            arm["peak_bytes"],
            {
                phase: {key: value for key, value in counts.items() if not key.endswith("_s")}
                for phase, counts in arm["counters"].items()
            },
        )
        for name, arm in record["arms"].items()
    }


def test_a_probe_changes_nothing_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiers = ("tier=hbm+cpu", "tier.hbm.size=0.3")
    _, (without,) = run((*TIGHT, *tiers), tmp_path / "without", monkeypatch)
    code, (record,) = run((*TIGHT, *tiers, "probe=on"), tmp_path / "with", monkeypatch)
    assert code == 0
    assert record["arms"]["quest"]["counters"]["decode"]["pages_evicted"] > 0
    assert untimed(record) == untimed(without)
    assert [one["answer"] for one in record["samples"]] == [
        one["answer"] for one in without["samples"]
    ]
    assert record["arms"]["dense"]["fidelity"] is None
    seen = record["arms"]["quest"]["fidelity"]
    assert seen["differing"] == [] and len(seen["uids"]) == 3
    assert seen["num_steps"] == sum(
        one["num_output_tokens"] - 1 for one in record["samples"] if one["arm"] == "quest"
    )
    assert 0.1 < record["arms"]["quest"]["metrics"]["mean_mass_recalled"]["value"] < 0.999
    (picture,) = (tmp_path / "with").glob("*/*/*/fidelity.png")
    assert picture.with_name("record.json").exists()


def test_dense_recalls_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, (record,) = run(("algo=dense", "probe=on", *SMALL), tmp_path, monkeypatch)
    assert code == 0
    metrics = record["arms"]["dense"]["metrics"]
    assert metrics["min_mass_recalled"]["value"] == 1
    assert metrics["max_output_error"]["value"] == 0
    assert metrics["mean_mass_recalled"]["n"] > 0


def test_a_trace_holds_no_probed_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, (record,) = run((*TIGHT, "probe=on", "trace=on"), tmp_path, monkeypatch)
    assert code == 0
    (path,) = tmp_path.glob("*/*/*/trace.safetensors")
    requests = Trace.load(path).header.requests
    assert len(requests) == 1 + record["workload"]["n_planned"]


def test_an_answer_that_differs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    true_run = cell.run_probe

    def after_a_lie(settings: Any, arm: Any, measured: Any, *rest: Any, **named: Any) -> Probed:
        first, *others = measured.outcomes
        changed = (replace(first, answer="other"), *others)
        return true_run(settings, arm, replace(measured, outcomes=changed), *rest, **named)

    monkeypatch.setattr(cell, "run_probe", after_a_lie)
    code, (record,) = run((*TIGHT, "probe=on", "probe.requests=2"), tmp_path, monkeypatch)
    assert code == 0
    assert len(record["arms"]["quest"]["fidelity"]["uids"]) == 2
    (told,) = record["arms"]["quest"]["fidelity"]["differing"]
    shown = " ".join(capsys.readouterr().out.split())
    assert f"NOT answered as measured: {told}" in shown


def test_a_probe_that_breaks_off_leaves_the_measured_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError("no room for the probe")

    monkeypatch.setattr("harness.probe.Probe", exhausted)
    code, (record,) = run((*TIGHT, "probe=on"), tmp_path, monkeypatch)
    assert code == 4
    assert record["errors"][0]["message"] == "no room for the probe"
    assert record["arms"]["quest"]["metrics"]["median_ttft_ms"]["value"] > 0
    assert record["arms"]["quest"]["fidelity"] is None


def test_steps_are_means_over_layers_and_heads() -> None:
    record = record_of(PROBED)
    metrics = record.arms["quest"].metrics
    values = {name: metrics[f"{name}_mass_recalled"].value for name in ("mean", "p10", "min")}
    assert values == pytest.approx({"mean": 0.5, "p10": 0.3, "min": 0.25})
    values = {name: metrics[f"{name}_output_error"].value for name in ("mean", "p90", "max")}
    assert values == pytest.approx({"mean": 0.5, "p90": 0.7, "max": 0.75})
    seen = record.arms["quest"].fidelity
    assert seen is not None
    assert seen.mass_recalled_LH == ((0.625, 0.375),)
    assert seen.output_error_LH == ((0.375, 0.625),)
    assert RunRecord.model_validate_json(record.model_dump_json()) == record


def test_the_table_has_rows_only_where_a_probe_looked() -> None:
    text = rendered(record_of(PROBED))
    assert "mass recalled - 50.0 % mass recalled, p10 - 30.0 %" in text
    assert "output error - 50.0 % output error, p90 - 70.0 %" in text
    assert "2 requests through quest once more, off the clock, 2 comparisons, every 3" in text
    assert "mass recalled" not in rendered(build_record(facts()))


def test_what_is_no_number_is_null() -> None:
    broken_NLH = RECALLED_NLH.copy()
    broken_NLH[0, 0, 0] = np.nan
    record = record_of(replace(PROBED, error_NLH=broken_NLH))
    assert record.arms["quest"].metrics["mean_output_error"].status == "invalid"
    assert record.arms["quest"].fidelity is not None
    assert record.arms["quest"].fidelity.output_error_LH == ((None, 0.375),)
    assert set(pictures(record)) == {"fidelity.png", "fidelity.svg"}


def test_without_steps_nothing_is_claimed() -> None:
    nothing = np.empty((0, 1, 0), dtype=np.float32)
    record = record_of(replace(PROBED, recalled_NLH=nothing, error_NLH=nothing))
    assert record.arms["quest"].metrics["mean_mass_recalled"].status == "unobservable"
    assert pictures(record) == {}


def test_without_matplotlib_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = partial(pictures, record_of(PROBED))
    assert draw()["fidelity.png"].startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw() == {}
