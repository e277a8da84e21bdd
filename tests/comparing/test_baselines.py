"""What is accepted, remembered and held to."""

import multiprocessing
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.comparing.command import main
from harness.comparing.finding import Comparison
from harness.comparing.noise import Noise
from harness.comparing.options import parse
from harness.record import RunRecord
from harness.stored.trials import Trial, write_trial
from harness.tracking.baselines import accepted
from harness.tracking.history import Row, row_of, series
from harness.tracking.lines import append, read
from harness.tracking.nightly import verdicts
from tests.comparing.made import record

SHIPPED = parse([]).rule
MARGIN = float(SHIPPED.margin_M(Noise().of(["median_tpot_ms"]))[0])


def launched(one: RunRecord):  # type: ignore[no-untyped-def]
    """A gate's run that yields this record."""
    return lambda tree, overrides, timeout_s: Trial(tree, one)


def gated(tmp_path: Path, one: RunRecord, *words: str) -> tuple[int, Comparison]:
    out = tmp_path / "out"
    given = ["gate", f"baselines={tmp_path / 'baselines'}", f"out={out}", *words]
    code = main(given, launched(one), tmp_path)
    return code, Comparison.model_validate_json((out / "verdict.json").read_text())


def tracked(tmp_path: Path, records: Sequence[RunRecord], *words: str) -> list[int]:
    """The exit code of each night in turn."""
    return [
        main(["track", str(write_trial(one, tmp_path / "runs")), f"baselines={tmp_path}", *words])
        for one in records
    ]


def test_a_gate_holds_counters_and_answers_to_what_was_accepted(tmp_path: Path) -> None:
    assert gated(tmp_path, record(), "reason=first")[0] == 0
    assert gated(tmp_path, record(minute=1))[0] == 0
    reads_more = record(minute=1, arm={"page_tokens": 32})
    code, verdict = gated(tmp_path, reads_more)
    assert code == 1
    assert [one.metric for one in verdict.findings if one.found == "regression"] == [
        "read_amplification"
    ]
    assert gated(tmp_path, record(scores=(1.0,) * 3 + (0.0,) * 5))[0] == 1


def test_a_gate_does_not_look_at_the_clock_nor_at_the_machine(tmp_path: Path) -> None:
    gated(tmp_path, record(), "reason=first")
    code, verdict = gated(tmp_path, record(slower=5, fingerprint="9"))
    assert code == 0
    assert {one.kind for one in verdict.findings} == {"counter", "accuracy"}


def test_a_gate_without_a_baseline_never_passes(tmp_path: Path) -> None:
    code, verdict = gated(tmp_path, record())
    assert code == 3
    assert "no accepted baseline" in verdict.findings[0].detail
    gated(tmp_path, record(), "reason=first")
    assert gated(tmp_path, record(digit="2"))[0] == 3


def test_what_is_accepted_later_counts_and_the_reason_is_kept(tmp_path: Path) -> None:
    gated(tmp_path, record(), "reason=first")
    changed = record(minute=1, arm={"page_tokens": 32})
    trial = write_trial(changed, tmp_path / "runs")
    words = [f"baselines={tmp_path / 'baselines'}", "reason=pages are larger now"]
    assert main(["accept", str(trial), *words]) == 0
    assert gated(tmp_path, changed)[0] == 0
    reasons = [one.reason for one in accepted(tmp_path / "baselines").rows]
    assert reasons == ["first", "pages are larger now"]


def test_a_run_that_is_not_valid_is_never_accepted(tmp_path: Path) -> None:
    failed = write_trial(record(status="failed"), tmp_path / "runs")
    assert main(["accept", str(failed), "reason=x", f"baselines={tmp_path}"]) == 2
    assert accepted(tmp_path).rows == ()


def test_one_slow_night_is_suspicious_two_are_a_regression(tmp_path: Path) -> None:
    nights = [record(minute=number) for number in range(3)]
    slow = [record(slower=1.2, minute=number) for number in (3, 4)]
    assert tracked(tmp_path, [*nights, *slow]) == [0, 0, 0, 0, 1]
    # It stays one until it is mended or accepted.
    assert tracked(tmp_path, [record(slower=1.2, minute=5)]) == [1]
    assert tracked(tmp_path, [record(minute=6)]) == [0]


def test_a_slow_night_between_good_ones_is_forgotten(tmp_path: Path) -> None:
    speeds = (1.0, 1.0, 1.0, 1.2, 1.0, 1.2, 1.0)
    nights = [record(slower=speed, minute=number) for number, speed in enumerate(speeds)]
    assert tracked(tmp_path, nights) == [0] * 7
    assert tracked(tmp_path, [record(slower=1.2, minute=9)], "strict=true") == [3]


def test_accepting_starts_the_series_anew(tmp_path: Path) -> None:
    good = [record(minute=number) for number in range(3)]
    slow = [record(slower=1.2, minute=number) for number in range(3, 8)]
    assert tracked(tmp_path, [*good, *slow[:2]]) == [0, 0, 0, 0, 1]
    last = next((tmp_path / "runs").rglob(f"*{slow[1].run.uid[:8]}"))
    assert main(["accept", str(last), "reason=known", f"baselines={tmp_path}"]) == 0
    assert tracked(tmp_path, slow[2:]) == [0, 0, 0]
    assert tracked(tmp_path, [record(slower=1.5, minute=minute) for minute in (8, 9)]) == [0, 1]


def test_a_run_that_is_not_valid_is_remembered_and_never_compared_with(tmp_path: Path) -> None:
    broken = record(slower=9, minute=1, status="failed")
    assert tracked(tmp_path, [record(), broken, record(minute=2)]) == [0, 4, 0]
    (one,) = series(tmp_path)
    assert [row.valid for row in one.rows] == [True, False, True]


def test_history_has_a_series_for_each_machine_and_each_run_once(tmp_path: Path) -> None:
    here, there = record(), record(fingerprint="9", minute=1)
    tracked(tmp_path, [here, there])
    trial = next((tmp_path / "runs").rglob(f"*{here.run.uid[:8]}"))
    main(["track", str(trial), f"baselines={tmp_path}"])
    found = series(tmp_path)
    assert [len(one.rows) for one in found] == [1, 1]
    assert {one.key.fingerprint for one in found} == {"0" * 64, "9" * 64}


def test_the_window_is_ten_good_runs() -> None:
    def rows(*costs: float) -> list[Row]:
        plain = row_of(record())
        return [plain.model_copy(update={"metrics": {"median_tpot_ms": cost}}) for cost in costs]

    def last(*costs: float) -> str:
        return verdicts(rows(*costs), "median_tpot_ms", MARGIN, higher=False)[-1]

    # The median of the last ten is 1, of all of them it would be 2.
    assert last(*[2.0] * 12, *[1.0] * 10, 1.5) == "suspicious"
    assert last(*[2.0] * 12, *[1.0] * 2, 1.5) == "unchanged"


def test_a_noisy_machine_raises_no_alarm_and_a_slowdown_is_found_within_a_week() -> None:
    plain, rng = row_of(record()), random.Random(11)

    def nights(num: int, slower: float) -> list[Row]:
        costs = [slower * rng.lognormvariate(0, 0.05) for _ in range(num)]
        return [plain.model_copy(update={"metrics": {"median_tpot_ms": one}}) for one in costs]

    alarms, found, num = 0, 0, 60
    for _ in range(num):
        rows = [*nights(20, 1.0), *nights(7, 1.2)]
        classes = verdicts(rows, "median_tpot_ms", MARGIN, higher=False)
        alarms += "regression" in classes[:20]
        found += "regression" in classes[20:]
    assert alarms / num <= 0.05
    assert found / num >= 0.8


def test_a_line_that_was_cut_off_is_named_and_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, row_of(record()))
    with path.open("a") as file:
        file.write('{"key": ')
    append(path, row_of(record(minute=1)))
    found = read(path, Row)
    assert len(found.rows) == 2
    assert [problem.startswith("rows.jsonl:2 is damaged") for problem in found.problems] == [True]


def test_writers_at_the_same_time_lose_no_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add_rows, args=(tmp_path, number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = read(tmp_path / "rows.jsonl", Row)
    assert found.problems == ()
    assert sorted(row.run for row in found.rows) == sorted(
        f"{n}-{i}" for n in range(4) for i in range(5)
    )


def add_rows(folder: Path, number: int) -> None:
    """Five rows of one writer."""
    plain = row_of(record())
    for index in range(5):
        append(folder / "rows.jsonl", plain.model_copy(update={"run": f"{number}-{index}"}))


@pytest.mark.parametrize("metric", ["output_throughput"])
def test_a_rate_that_falls_at_night_is_worse(tmp_path: Path, metric: str) -> None:
    speeds = (1.0, 1.0, 1.0, 1.3, 1.3)
    nights = [record(slower=speed, minute=number) for number, speed in enumerate(speeds)]
    assert tracked(tmp_path, nights, f"gated=[{metric}]") == [0, 0, 0, 0, 1]
    assert tracked(tmp_path, [record(slower=0.5, minute=5)], f"gated=[{metric}]") == [0]
