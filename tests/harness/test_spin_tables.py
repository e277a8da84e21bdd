"""What the study of metadata counts, at shapes small enough for a test."""

import json
from pathlib import Path

import pytest
import torch

from harness.cli import main
from harness.studies.spin_costs import Case, ModelShape, measure, part_of
from harness.studies.spin_placements import PLACEMENTS, WorkingSet
from harness.studies.spin_tables import SpinTables

SMALL_SHAPE = ModelShape(num_layers=2, num_kv_heads=2, head_dim=128)
SETTINGS = {
    "models": ["llama-3.1-70b"],
    "contexts": [4096],
    "batches": [1],
    "page_tokens": [16],
    "working_set_tokens": 2048,
    "run_tokens": 64,
    "memory": "64MiB",
    "headline": None,
    "seed": 0,
}
HEADLINE = {"model": "qwen3-14b", "context": 4096, "batch": 1, "page_tokens": 16}


def case(context: int = 131072, batch: int = 2, page_tokens: int = 16) -> Case:
    return Case(
        shape=SMALL_SHAPE,
        context=context,
        batch=batch,
        page_tokens=page_tokens,
        working_set_tokens=2048,
        run_tokens=64,
    )


@pytest.mark.parametrize("page_tokens", [16, 8])
def test_two_levels_are_49_times_smaller_at_128k(page_tokens):
    found = measure(case(page_tokens=page_tokens), seed=0)
    for name in PLACEMENTS:
        assert found.ratio(name) >= 49
        assert found.two_level[name].num_live == 8 * 2048 // page_tokens


def test_two_levels_gain_more_the_longer_the_context():
    short, long = (measure(case(context), seed=0) for context in (8192, 65536))
    for name in PLACEMENTS:
        assert long.ratio(name) > short.ratio(name) > 1


def test_flat_tables_cost_16_bytes_for_every_page_that_could_exist():
    found = measure(case(4096), seed=0).flat
    assert found.on("device") == 16 * found.num_slots == 16 * 8 * 4096 // 16
    assert found.per_slot("device") == 16
    assert found.on("host") == 0


def test_the_four_tables_lie_where_spin_puts_them():
    found = measure(case(4096), seed=0).two_level["random"]
    assert [(table.name, table.tier) for table in found.tables] == [
        ("meta-partition", "device"),
        ("page", "device"),
        ("cpu page", "host"),
        ("cpu partition offset", "host"),
    ]
    directory, page, cpu_page, offset = found.tables
    assert directory.used == 12 * found.num_slots // 64
    assert 4 * found.num_live <= page.used <= 2 * 4 * found.num_live
    assert cpu_page.used == directory.used + 4 * found.num_slots
    assert offset.used == 8 * found.num_slots + 4 * found.num_slots // 64
    assert found.per_live_slot("device") * found.num_live == found.on("device")


def test_a_part_multiplied_is_the_whole():
    whole, part = (measure(case(16384, batch), seed=0) for batch in (6, 2))
    scaled = part.times(3)
    assert scaled.flat == whole.flat
    for name in PLACEMENTS:
        assert scaled.two_level[name].num_slots == whole.two_level[name].num_slots
        assert scaled.ratio(name) == pytest.approx(whole.ratio(name), rel=0.1)


def test_a_case_is_cut_to_what_memory_holds():
    assert part_of(case(batch=8), 10**9) == case(batch=8)
    each = case(batch=1).num_slots * 28
    assert part_of(case(batch=8), 3 * each + 1) == case(batch=3)
    with pytest.raises(ValueError, match=rf"^study\.memory gives {each - 1} bytes[^\n]*$"):
        part_of(case(), each - 1)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_a_working_set_is_distinct_pages_of_each_row(name):
    size, generator = WorkingSet(96, 32, 4), torch.Generator().manual_seed(0)
    pages_RN = PLACEMENTS[name](200, size, generator)
    assert pages_RN.shape == (200, 32)
    assert (pages_RN.diff(dim=1) > 0).all()
    assert (pages_RN >= 0).all() and (pages_RN < 96).all()
    seen = pages_RN.unique()
    assert len(seen) == 96, "some page is in no row's set"


def test_runs_and_stretches_hang_together():
    size, generator = WorkingSet(1024, 32, 4), torch.Generator().manual_seed(0)
    runs_RN = PLACEMENTS["runs"](50, size, generator)
    assert (runs_RN[:, ::4] % 4 == 0).all()
    assert (runs_RN.unflatten(1, (8, 4)).diff(dim=2) == 1).all()
    assert (PLACEMENTS["contiguous"](50, size, generator).diff(dim=1) == 1).all()


BAD = {
    "models": ["llama-4"],
    "contexts": 4096,
    "batches": [0],
    "page_tokens": [24],
    "working_set_tokens": 8192,
    "run_tokens": 100,
    "memory": "much",
    "headline": {"model": "qwen3-14b"},
}


@pytest.mark.parametrize("key", BAD)
def test_a_bad_setting_is_refused_by_its_name_in_one_line(key):
    with pytest.raises(ValueError, match=rf"^[^\n]*study\.{key}=[^\n]*$"):
        SpinTables(**{**SETTINGS, key: BAD[key]})


@pytest.mark.parametrize("headline", [None, HEADLINE])
def test_good_settings_are_not_refused(headline):
    SpinTables(**{**SETTINGS, "headline": headline})


def study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str
) -> tuple[int, list[dict]]:
    """The exit code of a run, and the findings that it kept."""
    argv = ["harness/run.py", "experiment=spin_tables", f"results={tmp_path}", *overrides]
    monkeypatch.setattr("sys.argv", argv)
    code = main()
    assert not list(tmp_path.glob(".tmp*"))
    return code, [json.loads(path.read_text()) for path in tmp_path.glob("*/tables.json")]


SMALL = (
    "study.contexts=[4096]",
    "study.batches=[1,4]",
    "study.headline.context=4096",
    "study.headline.batch=2",
)


def test_the_experiment_prints_and_keeps_what_it_counted(tmp_path, monkeypatch, capsys):
    code, [found] = study(tmp_path, monkeypatch, *SMALL, "study.memory=16MiB")
    shown = capsys.readouterr().out
    assert code == 0
    assert len(found["cases"]) == 3 * 2 * 2
    for model in ("qwen3-14b", "qwen3-32b", "llama-3.1-70b"):
        assert model in shown
    assert "~4K x 4" in shown and " 4K x 1 " in shown
    assert "298 B" in shown
    assert "(measured whole; SPIN" in " ".join(shown.split())
    for one in (*found["cases"], found["headline"]):
        assert one["scaled"] == (one["measured_batch"] < one["case"]["batch"])
        assert one["flat"]["hbm_bytes_per_slot"] == 16
        for layout in one["two_level"].values():
            tables = [table for table in layout["tables"] if table["tier"] == "device"]
            total = sum(table["used"] + table["reserved"] for table in tables)
            assert layout["hbm_bytes"] == total
            assert layout["times_smaller_in_hbm"] == one["flat"]["hbm_bytes"] / total
    assert any(one["scaled"] for one in found["cases"])


def test_a_bad_value_on_the_command_line_is_one_line_and_keeps_nothing(
    tmp_path, monkeypatch, capsys
):
    code, found = study(tmp_path, monkeypatch, "study.memory=1KiB")
    error = capsys.readouterr().err
    assert (code, found) == (2, [])
    assert error.startswith("kvloom: study.memory gives 1024 bytes")
    assert error.count("\n") == 1
