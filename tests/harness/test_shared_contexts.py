"""Runs that ask each context several questions, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from harness.outcome import Outcome
from harness.studies.shared_context import losses
from tests.harness.cli_runs import SMALL, run
from tests.harness.facts import outcome

TWICE = (*SMALL, "task.tasks=[niah_multikey_1]", "protocol.num_questions=2")


def test_outcomes_and_scores_are_by_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*TWICE, "algo=snapkv", "protocol=question_dense", "probe=on")
    code, (record,) = run(words, tmp_path, monkeypatch)
    assert code == 0, capsys.readouterr().err
    assert record["workload"]["protocol"] == "question_dense, 2 questions of each context"
    tasks = [f"niah_multikey_1_question_{number}" for number in (1, 2)]
    for arm in ("dense", "snapkv"):
        samples = [one for one in record["samples"] if one["arm"] == arm]
        assert [one["question"] for one in samples] == [1, 2]
        assert [one["task"] for one in samples] == tasks
        first, second = samples
        # The second waits for its own tokens alone, not for the context.
        assert second["ttft_ms"] < first["ttft_ms"]
        assert list(record["arms"][arm]["accuracy"]["tasks"]) == tasks
        counters = record["arms"][arm]["counters"]
        prompts = sum(one["num_prompt_tokens"] for one in samples)
        assert counters["prefill"]["rows"] < 0.75 * prompts
    assert len(record["arms"]["snapkv"]["fidelity"]["uids"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trace=on",), "trace=off"),
        (("algo=retroinfer", "partition=padded", "protocol=question_dense"), "partition=packed"),
        (("task.tasks=[vt]",), "can be asked 1"),
        (("experiment=algorithms",), "experiment=shared_context"),
    ],
)
def test_what_cannot_be_asked_again_is_refused_in_one_line(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run((*TWICE, *words), tmp_path, monkeypatch) == (2, [])
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "num_questions=2" in error
    assert "\n" not in error


def asked(arm: str, scores: dict[int, str]) -> list[Outcome]:
    """Outcomes of an arm: right and wrong answers as 1 and 0, by question."""
    return [
        outcome(f"{number}-{index}", arm=arm, task=f"question_{number}", score=float(right))
        for number, answers in scores.items()
        for index, right in enumerate(answers)
    ]


def test_losses_are_paired_with_dense_and_apart_for_each_question() -> None:
    outcomes = {
        "dense": asked("dense", {1: "1" * 10, 2: "1" * 9 + "0"}),
        "forgets": asked("forgets", {1: "1" * 10, 2: "0" * 9 + "1"}),
    }
    found: dict[str, Any] = {one["task"]: one for one in losses(outcomes)}
    assert (found["question_1"]["harmful"], found["question_1"]["p"]) == (0, 1.0)
    second = found["question_2"]
    assert (second["harmful"], second["beneficial"], second["n"]) == (9, 1, 10)
    assert second["change"] == pytest.approx(-0.8)
    # Eleven of 1024 ways are as bad or worse; Holm doubles that.
    assert second["p"] == pytest.approx(2 * 11 / 1024)
