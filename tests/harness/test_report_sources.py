"""What a report reads: every source becomes runs or a reason, and none is trusted."""

from pathlib import Path

import pytest

from harness.recording import build_record
from harness.reporting.axes import is_bound
from harness.reporting.cells import cells_of
from harness.reporting.gather import gather
from harness.stored.trials import SAMPLES, write_trial
from tests.harness.facts import facts

ROOT = Path(__file__).parents[2]
NOT_RUNS: dict[str, tuple[str, str]] = {
    "cut off": ('{"schema_version": 2, "run": {"uid"', "cut off"),
    "empty": ("", "empty"),
    "of another kind": ('{"model": 1, "loss": 2}', "no schema_version"),
    "a list": ("[1, 2]", "list"),
    "newer": ('{"schema_version": 99}', "schema version 99 is newer"),
    "deep": ("[" * 100_000, ""),
    "no text": ("\x00\xff", ""),
    "not whole": ('{"schema_version": 2}', "no record"),
}


@pytest.mark.parametrize("kind", NOT_RUNS)
def test_what_is_no_record_is_listed_with_its_reason(kind: str, tmp_path: Path) -> None:
    text, reason = NOT_RUNS[kind]
    path = tmp_path / "record.json"
    path.write_text(text, encoding="latin-1")
    found = gather([path])
    assert found.seen == []
    (problem,) = found.damaged
    assert reason in problem.reason
    assert problem.reason
    assert problem.place == str(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_number_that_is_none_makes_a_record_damaged(number: str, tmp_path: Path) -> None:
    text = build_record(facts()).model_dump_json()
    assert '"duration_s":10.0' in text
    path = tmp_path / "one.json"
    path.write_text(text.replace('"duration_s":10.0', f'"duration_s":{number}'))
    found = gather([path])
    assert found.seen == []
    assert "duration_s" in found.damaged[0].reason


def test_samples_that_cannot_be_read_leave_the_record(tmp_path: Path) -> None:
    # Whole by its checksums, written by a version that knew another kind of sample.
    folder = write_trial(build_record(facts()), tmp_path, beside={SAMPLES: b'{"answer": 1}\n'})
    found = gather([folder])
    assert len(found.seen) == 1
    assert found.seen[0].samples == ()
    assert "its samples cannot be read" in found.damaged[0].reason


def test_records_of_the_first_schema_are_reported() -> None:
    found = gather([ROOT / "results" / "published"])
    assert found.damaged == []
    assert len(found.seen) == 7
    cells = cells_of(found.seen)
    assert {one.what["algo"] for one in cells} == {"quest", "oracle_topk", "streaming"}
    assert [one.bound for one in cells] == [one.what["algo"] == "oracle_topk" for one in cells]
    assert all(arm.steps["tpot"].num > 0 for one in cells for arm in one.arms.values())


def test_only_classes_of_algorithms_are_looked_up(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit")
    for target in ("evil.X", "os.system", "sparse_algos.nothing.X", "sparse_algos", 3, None):
        assert not is_bound({"algo": {"retrieve": {"_target_": target}}})
    assert not is_bound({"algo": 1})
