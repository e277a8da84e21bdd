"""The report: whatever lies in a store, its reader sees numbers with their origin, or a reason."""

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from harness.accuracy import wilson
from harness.recording import build_record, build_requests
from harness.reporting.cells import cells_of
from harness.reporting.csv_rows import csv_text
from harness.reporting.distributions import MOST_STEPS, steps_of
from harness.reporting.front import front_of, points_of
from harness.reporting.gather import Gathered, Seen, gather
from harness.reporting.markdown import markdown
from harness.reporting.page import as_script_data
from harness.reporting.payload import all_cells, payload
from harness.reporting.write import write_report
from harness.stored.trials import RECORD, write_trial
from tests.harness.facts import cell, dense_arm, facts, faster, quest_arm
from tests.harness.synthetic import sweep

ROOT = Path(__file__).parents[2]


def written(root: Path, **changes: Any) -> Path:
    given = facts(**changes)
    return write_trial(build_record(given), root, build_requests(given.arms))


def seen(**changes: Any) -> Seen:
    record = build_record(facts(**changes))
    return Seen(place=record.run.uid, record=record, samples=record.samples, requests=())


def test_a_damaged_trial_is_listed_and_the_others_are_reported(tmp_path: Path) -> None:
    good, bad = written(tmp_path / "runs"), written(tmp_path / "runs", cell=cell("1"))
    (bad / RECORD).write_text("{")
    out = tmp_path / "out"
    write_report([tmp_path / "runs"], out, tmp_path / "none")
    words = (out / "report.md").read_text()
    assert "1 could not be read" in words
    assert f"damaged: runs/{'1' * 16}/" in words.replace("\\", "")
    assert RECORD in words
    (row,) = [row for row in rows_of(out) if row["arm"] == "quest"]
    assert row["cell"] == good.parent.name


def test_trials_of_a_cell_become_their_median_and_range() -> None:
    arms = [quest_arm(peak_bytes={"hbm": size}) for size in (10, 50, 20)]
    (one,) = cells_of([seen(arms=(dense_arm(), arm)) for arm in arms])
    reading = one.arms["quest"].readings["hbm"]
    assert (reading.value, reading.lo, reading.hi) == (20, 10, 50)
    assert "median of 3 trials" in reading.how
    # Where the trials have intervals, those are spanned too.
    uneven = quest_arm(outcomes=tuple(faster(f"r{n}", by=1.5 + n % 2) for n in range(4)))
    apart = [seen(), seen(arms=(dense_arm(), uneven))]
    alone, both = (
        cells_of(trials)[0].arms["quest"].readings["tpot_ratio"] for trials in (apart[1:], apart)
    )
    assert alone.hi is not None
    assert alone.value < alone.hi == both.hi
    # What is the same in all trials keeps its own interval.
    ratio = one.arms["quest"].readings["tpot_ratio"]
    assert "t on log ratios" in ratio.how


def test_only_trials_that_may_be_used_are_in_the_median() -> None:
    good, bad = seen(), seen(status="interrupted", arms=(dense_arm(peak_bytes={"hbm": 7}),))
    (one,) = cells_of([good, bad])
    assert one.valid
    assert one.arms["dense"].readings["hbm"].value == 4 * 2**20
    assert sorted(trial.status for trial in one.trials) == ["interrupted", "ok"]


def test_another_commit_is_another_cell_and_the_later_one_counts() -> None:
    older = seen(cell=cell().model_copy(update={"code": "d" * 64}))
    late = facts().started_at.replace(year=2027)
    newer = seen(started_at=late, ended_at=late)
    current = {one.trials[0].place: one.current for one in cells_of([newer, older])}
    assert current == {older.place: False, newer.place: True}


def test_the_interval_of_several_tasks_counts_every_answer_once() -> None:
    (one,) = cells_of(gather([ROOT / "results/published/ruler_4k_quest_64.json"]).seen)
    reading = one.arms["quest"].readings["acc"]
    assert reading.n == 48
    expected = wilson(reading.value, 48)
    assert expected is not None
    assert (reading.lo, reading.hi) == (expected.lo, expected.hi)


def test_an_ecdf_keeps_its_ends_and_its_number() -> None:
    few, many = steps_of([3.0, 1.0, 2.0]), steps_of([float(v) for v in range(1000)])
    assert few.values == (1, 2, 3)
    assert (many.values[0], many.values[-1], many.num) == (0, 999, 1000)
    assert len(many.values) == MOST_STEPS


def test_the_change_of_accuracy_stands_in_the_csv_with_its_verdict() -> None:
    lost = tuple(faster(f"r{n}", by=2, score=float(n > 0)) for n in range(4))
    cells = cells_of([seen(arms=(dense_arm(), quest_arm(outcomes=lost)))])
    base, row = csv.DictReader(StringIO(csv_text(cells)))
    assert (row["acc_change"], row["acc_num_worse"], row["acc_num_better"]) == ("-0.25", "1", "0")
    assert float(row["acc_change_low"]) < -0.25 < float(row["acc_change_high"])
    assert (row["acc_verdict"], row["acc_margin"]) == ("inconclusive", "0.01")
    assert "1 worse, 0 better; inconclusive" in row["acc_change_how"]
    assert base["acc_change"] == base["acc_verdict"] == ""


def test_no_point_off_the_front_is_better_than_one_on_it() -> None:
    cells = cells_of(sweep(60))
    points = [point for point in points_of(cells, "tpot_ratio") if not point.is_bound]
    front = front_of(points)
    assert 1 < len(front) < len(points)
    for point in points:
        beaten = any(
            other.cost.value <= point.cost.value and other.accuracy.value >= point.accuracy.value
            for other in front
        )
        assert beaten or point in front


def test_a_bound_is_never_on_the_front() -> None:
    cells = cells_of(sweep(120))
    points = points_of(cells, "tpot_ratio")
    bounds = [point for point in points if point.is_bound]
    assert bounds
    first = front_of(points)[0]
    named = [replace(one, cell=replace(one.cell, bound=one == first)) for one in points]
    front = front_of(named)
    assert front[0].cell.id != first.cell.id
    assert not any(point.is_bound for point in front)


def test_a_record_cannot_end_the_element_that_holds_it() -> None:
    text = as_script_data({"a": "</script><script>x</script><!-- \u2028 &"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text)["a"].startswith("</script>")


def test_no_number_that_is_not_finite_reaches_the_page() -> None:
    with pytest.raises(ValueError, match="JSON"):
        as_script_data({"a": math.nan})


def test_a_text_of_a_record_is_neither_markup_nor_a_formula() -> None:
    names = "=1+1|<img src=x>\n# head"
    given = facts(arms=(dense_arm(), replace(quest_arm(), name=names)))
    record = build_record(given)
    cells = cells_of([Seen(place="here", record=record, samples=(), requests=())])
    words = markdown(Gathered(sources=()), cells, [])
    assert "<img" not in words
    assert "\n# head" not in words
    row = list(csv.DictReader(StringIO(csv_text(cells))))[1]
    assert row["arm"] == f"'{names}"


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO((out / "report.csv").read_text())))


def test_the_csv_has_a_row_for_each_cell_and_arm_with_its_origin(tmp_path: Path) -> None:
    written(tmp_path / "runs")
    given = facts(arms=(), status="oom", cell=cell("1"))
    write_trial(build_record(given), tmp_path / "runs")
    write_report([tmp_path / "runs"], tmp_path / "out", tmp_path / "none")
    rows = rows_of(tmp_path / "out")
    assert [(row["arm"], row["status"]) for row in rows] == [
        ("dense", "ok"),
        ("quest", "ok"),
        ("", "oom"),
    ]
    quest = rows[1]
    assert float(quest["tpot_ratio"]) == pytest.approx(0.5)
    assert "t on log ratios" in quest["tpot_ratio_how"]
    assert "oom" in rows[2]["reasons"]
    # One tier has no hit rate: unobservable is empty, never 0.
    assert rows[0]["hit"] == ""


def test_pictures_are_drawn_and_linked(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written(tmp_path / "runs")
    site = tmp_path / "site"
    write_report([tmp_path / "runs"], tmp_path / "out", tmp_path / "none", site)
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    kinds = ("png", "svg")
    expected = ("pareto", "bytes", "latency")
    assert {f"{name}.{kind}" for name in expected for kind in kinds} <= names
    assert "](figures/pareto.png)" in (tmp_path / "out" / "report.md").read_text()
    page = (tmp_path / "out" / "report.html").read_bytes()
    assert (site / "index.html").read_bytes() == page
    assert (site / ".nojekyll").exists()


def test_a_study_and_a_split_are_reported() -> None:
    folder = ROOT / "results"
    paths = [folder / "published/algorithms/algorithms.json", folder / "benchmarks/algorithms.json"]
    found = gather(paths)
    assert found.damaged == []
    shown = payload(found, all_cells(found), [])
    points = json.loads(paths[0].read_bytes())["points"]
    reported = [(one["what"]["algo"], one["what"].get("budget")) for one in shown["cells"]]
    assert reported == [(point["algo"], point["budget"]) for point in points]
    assert {one["algo"] for one in shown["splits"]} > {"quest", "sparq"}


def baselines(folder: Path) -> None:
    folder.mkdir()
    key = {"fingerprint": "0" * 64, "cell": "0" * 64, "benchmark": "b" * 64}
    accepted = {
        "key": key,
        "label": "quest",
        "reason": "first",
        "accepted_at": "2026-01-01T00:00:00Z",
        "run": "a",
        "metrics": {"median_tpot_ms": 10.0},
    }
    lines = [json.dumps(accepted), "{cut", "3", json.dumps({"metrics": {}})]
    (folder / "accepted.jsonl").write_text("\n".join(lines))


def test_runs_of_the_store_stand_beside_what_was_accepted(tmp_path: Path) -> None:
    written(tmp_path / "runs")
    written(tmp_path / "runs", cell=cell("1"))
    baselines(tmp_path / "baselines")
    write_report([tmp_path / "runs"], tmp_path / "out", tmp_path / "baselines")
    shown = data_of(tmp_path / "out" / "report.html")
    tpot = [line for line in shown["history"] if line["metric"] == "median_tpot_ms"]
    # Of the cell that was accepted, not of the other.
    assert [(line["accepted"], round(line["value"], 9)) for line in tpot] == [
        (True, 10),
        (False, 10),
    ]
    assert [place.rpartition(":")[2] for place, _ in shown["damaged"]] == ["2", "3"]


def data_of(page: Path) -> dict[str, Any]:
    _, _, rest = page.read_text().partition('<script type="application/json" id="data">')
    return json.loads(rest.partition("</script>")[0])


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "harness" / "report.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_writes_a_report_of_an_empty_store(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "results/report/report.html\n")
    assert data_of(tmp_path / "results/report/report.html")["cells"] == []


def test_a_source_that_is_not_there_is_an_error_of_usage(tmp_path: Path) -> None:
    done = run("nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("kvloom: nowhere is not there")
    assert "Traceback" not in done.stderr
