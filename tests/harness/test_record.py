"""The record: complete, strict, and judged before anybody reads a number."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError

from harness.environment import environment, measurement
from harness.outcome import ArmResult
from harness.record import Budget, RunError, RunRecord
from harness.recording import build_record, requested_sparsity
from harness.sources import ROOT
from tests.harness.facts import dense_arm, facts, faster, outcome, quest_arm


def quest_with(**changes: Any) -> tuple[ArmResult, ArmResult]:
    """Both arms, each request of quest's changed alike."""
    changed = tuple(faster(f"r{index}", by=2, **changes) for index in range(4))
    return dense_arm(), quest_arm(outcomes=changed)


def test_a_run_that_went_well_is_valid() -> None:
    record = build_record(facts())
    assert (record.run.verdict.valid, record.run.verdict.reasons) == (True, ())
    assert record.run.duration_s == 10
    assert list(record.arms) == ["dense", "quest"]
    assert list(record.comparisons) == ["quest"]
    assert record.config.effective["quest"] == {"kernel": "cpu", "threads": 1}


def test_a_record_survives_its_json() -> None:
    record = build_record(facts())
    text = record.model_dump_json()
    assert RunRecord.model_validate_json(text) == record
    json.loads(text, parse_constant=refuse_constant)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_counters_are_kept_by_phase_and_tier_pair() -> None:
    counters = build_record(facts()).arms["quest"].counters
    assert counters["decode"]["pages_hit"] == 300
    assert counters["prefill"]["bytes_moved"] == {"hbm->cpu": 3 * 2**20}
    assert counters["question"]["bytes_moved"] == {}


def test_samples_hold_every_request_of_every_arm() -> None:
    samples = build_record(facts()).samples
    assert len(samples) == 8
    first = next(sample for sample in samples if (sample.arm, sample.uid) == ("quest", "r0"))
    assert (first.references, first.answer, first.score) == (("4711",), "4711", 1.0)
    assert (first.ttft_ms, first.tpot_ms) == pytest.approx((50, 10))


def test_sample_ids_are_hashed_whatever_their_order() -> None:
    def digest(*uids: str) -> str:
        return build_record(facts(planned_uids=uids)).workload.sample_ids_sha256

    assert digest("r0", "r1") == digest("r1", "r0")
    assert digest("r0", "r1") != digest("r0", "r2")
    assert digest("r0", "r1") != digest("r0r1")


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_nan_is_refused_however_deep_it_lies(broken: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        build_record(facts(config={"algo": {"betas": [0.5, broken]}}))
    with pytest.raises(ValidationError, match="finite number"):
        build_record(facts(arms=(dense_arm(effective={"ratio": broken}), quest_arm())))


@pytest.mark.parametrize("constant", ["NaN", "Infinity"])
def test_nan_is_refused_when_a_record_is_read(constant: str) -> None:
    text = build_record(facts()).model_dump_json()
    for name in ('"duration_s":10.0', '"budget_tokens":1024'):
        assert name in text
        broken = text.replace(name, f"{name.split(':')[0]}:{constant}")
        with pytest.raises(ValidationError):
            RunRecord.model_validate_json(broken)


def leaves(value: JsonValue) -> Iterator[dict[str, JsonValue]]:
    """Every object inside a JSON value that has a `value`: the metrics."""
    if isinstance(value, dict):
        if "value" in value:
            yield value
        for inner in value.values():
            yield from leaves(inner)


def test_every_metric_says_its_unit_and_where_it_comes_from() -> None:
    metrics = list(leaves(build_record(facts()).model_dump(mode="json")))
    assert len(metrics) > 50
    for metric in metrics:
        assert metric["unit"]
        assert metric["source"] in ("client", "accounting")
        assert (metric["value"] is None) == (metric["status"] in ("unobservable", "invalid"))


def test_an_unknown_key_and_another_version_are_refused() -> None:
    content = json.loads(build_record(facts()).model_dump_json())
    for changed in (
        {**content, "extra": 1},
        {**content, "schema_version": 3},
        {**content, "run": {**content["run"], "host": "a"}},
        {**content, "workload": {**content["workload"], "seed": "7"}},
    ):
        with pytest.raises(ValidationError):
            RunRecord.model_validate_json(json.dumps(changed))
    RunRecord.model_validate_json(json.dumps(content))


def test_a_run_that_completed_nothing_is_invalid() -> None:
    nothing = quest_with(num_output_tokens=0)
    silent = tuple(replace(one, token_times_s=()) for one in nothing[1].outcomes)
    record = build_record(facts(arms=(dense_arm(), quest_arm(outcomes=silent))))
    assert "quest: no request was completed" in record.run.verdict.reasons
    assert record.workload.n_done == 0
    empty = build_record(facts(arms=(dense_arm(outcomes=()), quest_arm(outcomes=()))))
    assert len(empty.run.verdict.reasons) == 2


def test_answers_without_a_token_are_invalid() -> None:
    reasons = build_record(facts(arms=quest_with(num_output_tokens=0))).run.verdict.reasons
    assert "quest: no output token was counted" in reasons


def test_fewer_requests_than_planned_are_invalid() -> None:
    record = build_record(facts(planned_uids=("r0", "r1", "r2", "r3", "r4")))
    assert record.run.verdict.reasons == (
        "dense: 4 of 5 requests were completed",
        "quest: 4 of 5 requests were completed",
    )
    assert (record.workload.n_planned, record.workload.n_done) == (5, 4)


def test_a_gated_metric_that_is_not_finite_is_invalid() -> None:
    (first, *others) = quest_arm().outcomes
    broken = replace(first, token_times_s=(math.nan, math.nan, math.nan))
    record = build_record(facts(arms=(dense_arm(), quest_arm(outcomes=(broken, *others)))))
    assert "quest: median_ttft_ms is not a finite number" in record.run.verdict.reasons
    assert [sample.ttft_ms is None for sample in record.samples[4:]] == [True, False, False, False]


@pytest.mark.parametrize(
    ("num_tokens", "valid"), [(89, False), (90, True), (110, True), (111, False)]
)
def test_answers_of_another_length_make_the_speed_comparison_invalid(
    num_tokens: int, valid: bool
) -> None:
    hundred = dense_arm(outcomes=(outcome("r0", num_output_tokens=100),))
    ours = quest_arm(outcomes=(faster("r0", by=2, num_output_tokens=num_tokens),))
    verdict = build_record(facts(arms=(hundred, ours), planned_uids=("r0",))).run.verdict
    assert verdict.valid == valid
    assert all(f"{num_tokens} % of the output tokens" in reason for reason in verdict.reasons)


def test_a_run_without_its_baseline_is_invalid() -> None:
    record = build_record(facts(arms=(quest_arm(),)))
    assert record.run.verdict.reasons == ("no dense baseline was measured",)
    assert record.comparisons == {}


def test_dense_alone_is_a_valid_run_with_nothing_to_compare() -> None:
    record = build_record(facts(arms=(dense_arm(),)))
    assert record.run.verdict.valid
    assert record.comparisons == {}


def test_a_run_that_broke_off_says_why() -> None:
    error = RunError(kind="OutOfFramesError", stage="decode", message="hbm holds 3 pages")
    record = build_record(facts(arms=(), status="oom", errors=(error,)))
    assert not record.run.verdict.valid
    assert record.errors == (error,)
    assert "the run ended as oom" in record.run.verdict.reasons
    assert record.workload.prompt_tokens is None


def test_the_requested_sparsity_is_that_of_these_prompts() -> None:
    assert build_record(facts()).system.requested_sparsity == pytest.approx(0.75)
    assert requested_sparsity(Budget(fraction=0.1), []) == pytest.approx(0.9)
    # A prompt shorter than the budget is read whole.
    assert requested_sparsity(Budget(tokens=100), [50, 200]) == pytest.approx(0.25)
    assert requested_sparsity(Budget(), [50]) is None


def test_the_environment_names_no_path_and_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KVLOOM_STORE", "/some/where")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SECRET_TOKEN", "xyz")
    seen = environment()
    assert seen.variables["KVLOOM_STORE"] == "<path>"
    assert seen.variables["OMP_NUM_THREADS"] == "1"
    text = seen.model_dump_json()
    assert "/some/where" not in text
    assert "xyz" not in text
    assert seen.packages["torch"]
    assert len(seen.fingerprint) == 64
    assert environment() == seen


def test_the_measurement_is_read_back_from_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    taken = measurement(warmup=2, interleaving="request")
    assert taken.omp_wait_policy == "PASSIVE"
    assert taken.torch_threads >= 1
    assert (taken.percentile_method, taken.ddof) == ("numpy linear", 0)


@pytest.mark.parametrize(
    ("given", "first", "seen"),
    [
        (None, "", "PASSIVE"),
        ("ACTIVE", "", "ACTIVE"),
        # Read once, as torch loads: what was not in force is not written down.
        (None, "import torch;", "None"),
    ],
)
def test_threads_do_not_spin_unless_asked_to(given: str | None, first: str, seen: str) -> None:
    variables = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if given is not None:
        variables["OMP_WAIT_POLICY"] = given
    # As a script, but for its `main`; a listing loads no torch of its own.
    code = (
        f"{first}import os, runpy, sys; sys.argv[1:] = ['--list', 'probe']; "
        "runpy.run_path('harness/run.py'); print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    shown = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, env=variables, text=True
    )
    assert shown.strip() == seen
