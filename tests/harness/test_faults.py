"""Faults that a run could hide: settings that were not applied, warm-ups that are measured."""

from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from backends.transformers.loading import load_tokenizer
from harness.build import build
from harness.composing import settings_from
from harness.recording import build_record
from harness.workload import make_workload, warmup_request
from tests.harness.cli_runs import SMALL, run
from tests.harness.facts import dense_arm, facts, quest_arm


@pytest.mark.parametrize(
    ("asked", "ran", "reason"),
    [
        ({"kernel": "torch"}, {"kernel": "cpu-cpp"}, "backend.kernel=torch was asked for"),
        ({"device": "cuda"}, {"device": "cpu"}, "backend.device=cuda was asked for"),
        ({"max_batch": 2}, {"sequences": 3}, "backend.max_batch=2 was asked for"),
        ({}, {"budget_tokens": {"retrieve": 256}}, "algo.retrieve.budget_tokens=64 was asked for"),
        ({}, {"budget_tokens": {"retrieve": 64}}, None),
        ({"device": "cuda"}, {"device": "cuda:0"}, None),
        ({"kernel": "auto"}, {"kernel": "cpu-cpp"}, None),
        ({"max_batch": 2}, {"sequences": 1}, None),
    ],
)
def test_a_setting_that_was_recorded_and_not_applied_spoils_the_run(
    asked: dict[str, Any], ran: dict[str, Any], reason: str | None
) -> None:
    arms = (dense_arm(effective={}), quest_arm(effective=ran))
    config = {"backend": asked, "algo": {"retrieve": {"budget_tokens": 64}}}
    verdict = build_record(facts(arms=arms, config=config)).run.verdict
    assert verdict.valid == (reason is None)
    if reason is not None:
        assert verdict.reasons[0].startswith(f"quest: {reason}")


@pytest.mark.parametrize("task", ["ruler", "random"])
def test_a_warm_up_shares_nothing_with_what_is_measured(task: str) -> None:
    settings = settings_from([f"task={task}", "task.length=512", "task.num_samples=3"])
    tokenizer = load_tokenizer("models/bundled")
    workload = make_workload(
        build(settings.task, "task"),
        tokenizer,
        protocol="question_sparse",
        temperature=0,
        stop_ids=frozenset(),
    )
    warm_up = warmup_request(workload, 64, len(tokenizer))
    measured = [item.request for item in workload.items]
    assert len({one.uid for one in measured} | {warm_up.uid}) == len(measured) + 1
    start = warm_up.prompt_ids[:16]
    assert len(start) == 16
    assert all(one.prompt_ids[:16] != start for one in measured)


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    assert run(SMALL, blocked / "store", monkeypatch) == (2, [])
    said = capsys.readouterr()
    assert "give results=FOLDER" in said.err
    assert "requests" not in said.out


def test_a_clock_that_jumps_back_changes_no_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = iter(range(100))

    class Jumping(datetime):
        """A time of day that loses an hour between two looks at it."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) - timedelta(hours=next(jumps))

    monkeypatch.setattr("harness.cell.datetime", Jumping)
    code, (record,) = run(("hydra.mode=RUN", *SMALL), tmp_path, monkeypatch)
    assert code == 0
    assert 0 < record["run"]["duration_s"] < 600
    assert record["run"]["started_at"] < record["run"]["ended_at"]
    latencies = [one[name] for one in record["samples"] for name in ("ttft_ms", "tpot_ms")]
    assert all(latency is None or latency > 0 for latency in latencies)
    assert next(jumps) >= 1, "nobody looked at the clock"
