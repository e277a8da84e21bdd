"""The table, as a reader of 80 columns sees it."""

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.outcome import Outcome
from harness.record import RunError, RunRecord
from harness.recording import build_record
from harness.table import render
from harness.units import binary_bytes, digits, duration
from tests.harness.facts import dense_arm, facts, faster, outcome, quest_arm

FACTORS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def rendered(record: RunRecord, width: int = 80) -> str:
    """The table as it goes into a file."""
    file = io.StringIO()
    render(record, Console(file=file, width=width))
    return file.getvalue()


def line_of(text: str, label: str) -> str:
    """The only line with a label, its spaces squeezed."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(label)]
    return re.sub(" +", " ", line.strip())


@pytest.mark.parametrize(
    "line",
    [
        "niah_single_1 n=4 1.00 [0.51, 1.00] 1.00 [0.51, 1.00] +0.00 [-0.49, 0.49]",
        "worse / better 0 / 0",
        "TTFT 100 ms 50.0 ms 0.50x [0.50, 0.50]",
        "prefill density - 25.0 %",
        "TPOT 20.0 ms 10.0 ms 0.50x [0.50, 0.50]",
        "output tokens/s 85.7 171 2.00x",
        "tokens per answer 3.00 3.00 1.00x",
        "KV read per step 2.00 MiB 512 KiB 0.25x",
        "hit rate - 75.0 %",
        "read amplification 1.00 1.50",
        "sparsity requested - 75.0 %",
        "sparsity achieved 0.0 % 80.0 %",
        "cpu->hbm per step - 256 KiB",
        "hbm->cpu per step - 128 KiB",
        "hbm 4.00 MiB 1.00 MiB 0.25x",
        "cpu - 4.00 MiB -",
        "index 0 B 64.0 KiB",
        "note: hbm is an arena of host memory: no accelerator on this machine",
    ],
)
def test_every_number_is_in_its_line(line: str) -> None:
    label = re.split(r" (?=[\d-])| n=", line)[0]
    text = rendered(build_record(facts()))
    assert line in [
        re.sub(" +", " ", shown.strip()) for shown in text.splitlines() if label in shown
    ]


def test_the_title_names_model_length_and_tiers() -> None:
    title = rendered(build_record(facts())).splitlines()[0]
    assert title == "quest vs dense | bundled | ruler, 4,096 tokens | hbm+cpu"


def scored(task: str, *, lost: int) -> tuple[list[Outcome], list[Outcome]]:
    """Forty answers that dense has right, and Quest but for some."""
    uids = [f"{task}-{number}" for number in range(40)]
    dense = [outcome(uid, task=task) for uid in uids]
    return dense, [
        faster(uid, by=2, task=task, score=float(number >= lost)) for number, uid in enumerate(uids)
    ]


def test_the_footer_names_what_was_lost_and_what_is_left_open() -> None:
    (dense, ours), (more_dense, more) = scored("vt", lost=20), scored("qa_1", lost=1)
    arms = (
        dense_arm(outcomes=(*dense, *more_dense)),
        quest_arm(outcomes=(*ours, *more)),
    )
    text = rendered(build_record(facts(arms=arms)), width=200)
    assert line_of(text, "worse / better") == "worse / better 21 / 0"
    assert line_of(text, "verdict") == "verdict regression"
    assert "regression: quest, vt -0.50, 20 worse, 0 better, p" in text
    assert "qa_1 -0.03," not in text
    assert line_of(rendered(build_record(facts())), "verdict") == "verdict inconclusive"
    open_text = " ".join(rendered(build_record(facts())).split())
    assert "inconclusive: quest was scored on 4 requests, about 16,000 would tell" in open_text


def test_the_footer_says_how_it_was_measured() -> None:
    text = " ".join(rendered(build_record(facts())).split())
    assert "4 of 4 requests per arm, 1 warm-up, interleaving: request, threads: 1" in text


def test_nothing_is_cut_at_80_columns_and_in_a_file() -> None:
    text = rendered(build_record(facts()))
    assert "\x1b" not in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_more_arms_than_fit_are_folded_and_not_cut() -> None:
    twice = [replace(quest_arm(), name=name) for name in ("quest", "arkvale")]
    text = rendered(build_record(facts(arms=(dense_arm(), *twice))))
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert max(map(len, text.splitlines())) <= 80
    wide = rendered(build_record(facts(arms=(dense_arm(), *twice))), width=140)
    assert line_of(wide, "TTFT").count("0.50x [0.50, 0.50]") == 2


def test_a_valid_run_is_not_called_invalid() -> None:
    assert "NOT VALID" not in rendered(build_record(facts()))


def test_an_invalid_run_says_so_before_anything_else() -> None:
    short = tuple(faster(f"r{index}", by=2, num_output_tokens=2) for index in range(4))
    record = build_record(facts(arms=(dense_arm(), quest_arm(outcomes=short))))
    file = io.StringIO()
    render(record, Console(file=file, width=80, force_terminal=True, color_system="standard"))
    first, reason = file.getvalue().splitlines()[:2]
    assert "NOT VALID" in first
    assert "\x1b[1;31m" in first
    assert "\x1b[31m" in reason
    assert "67 % of the output tokens of dense" in rendered(record)


def test_several_tasks_are_summed_up_and_empty_answers_counted() -> None:
    outcomes = (outcome("r0"), outcome("r1", task="vt", score=0.0, answer=""))
    record = build_record(facts(arms=(dense_arm(outcomes=outcomes),), planned_uids=("r0", "r1")))
    text = rendered(record)
    assert line_of(text, "mean of 2 tasks") == "mean of 2 tasks 0.50"
    assert line_of(text, "vt n=1") == "vt n=1 0.00 [0.00, 0.79]"
    assert line_of(text, "empty answers") == "empty answers 1"


def test_a_run_that_broke_off_has_a_table_too() -> None:
    error = RunError(kind="OutOfFramesError", stage="decode", message="[bold]hbm[/bold] is full")
    text = rendered(build_record(facts(arms=(), status="oom", errors=(error,))))
    assert "the run ended as oom" in text
    assert "decode: OutOfFramesError: [bold]hbm[/bold] is full" in text


@given(st.integers(0, 2**48))
def test_bytes_read_back_as_what_they_were(num_bytes: int) -> None:
    number, unit = binary_bytes(num_bytes).split()
    assert float(number.replace(",", "")) * FACTORS[unit] == pytest.approx(num_bytes, rel=0.006)


@given(st.floats(1e-6, 1e9))
def test_three_digits_are_kept_and_no_exponent_appears(value: float) -> None:
    text = digits(value)
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.006)
    assert re.fullmatch(r"[\d,]*\.?\d*", text)


def test_long_times_are_seconds() -> None:
    assert [duration(value) for value in (0.0123, 9.5, 9999, 12_340)] == [
        "0.0123 ms",
        "9.50 ms",
        "9,999 ms",
        "12.3 s",
    ]
