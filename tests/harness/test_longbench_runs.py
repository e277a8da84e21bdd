"""LongBench from the command line: all of it on a small copy of its format, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tasks.longbench_table import SUBSETS
from tests.harness.cli_runs import run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("tests", "data", "longbench")
LOCAL = (
    "task=longbench", f"task.path={FOLDER}", f"task.prompts={FOLDER / 'dataset2prompt.json'}",
    "load.warmup_tokens=64",
)  # fmt: skip


@pytest.mark.slow
def test_all_tasks_run_end_to_end(tmp_path):
    words = [*LOCAL, "task.num_samples=1", "task.max_new_tokens=8", f"results={tmp_path}"]
    command = [sys.executable, "harness/run.py", *words]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (path,) = tmp_path.glob("*/*/*/record.json")
    record = json.loads(path.read_text())
    assert record["workload"]["task"] == "longbench"
    assert record["workload"]["n_done"] == 21
    for arm in ("dense", "quest"):
        assert set(record["arms"][arm]["accuracy"]["tasks"]) == set(SUBSETS)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (("task=longbench", "task.path=conf"), ("task.path=conf has no narrativeqa.jsonl,",
                                                "hf download THUDM/LongBench data.zip")),
        (("task=longbench_e", "task.path=conf"), ("task.path=conf has no qasper_e.jsonl,",
                                                  "hf download THUDM/LongBench data.zip")),
        (("task=longbench_e", "task.tasks=[lcc_e]"), ("no data of lcc_e in the hub's cache",
                                                      "task.path=FOLDER", "hf download")),
        (("task=longbench", "task.tasks=[lcc]"), ("no data of lcc in the hub's cache",
                                                  "task.path=FOLDER", "hf download")),
        ((*LOCAL, "task.length=32700"), ("task.length=32700", "lower it to 32256")),
        ((*LOCAL, "task.prompts=nowhere.json"), ("task.prompts=nowhere.json", "No such file")),
        (("task=longbench", "task.tasks=[nosuch]"), ("task.tasks=['nosuch']", "narrativeqa")),
    ],
)  # fmt: skip
def test_what_is_absent_is_named_before_the_model_loads(
    overrides, parts, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("harness.embedded.load", None)
    prompts = f"task.prompts={FOLDER / 'dataset2prompt.json'}"
    given = () if any("task.prompts" in one for one in overrides) else (prompts,)
    code, records = run((*overrides, *given), tmp_path, monkeypatch)
    shown = capsys.readouterr()
    assert (code, records) == (2, [])
    assert shown.err.startswith("kvloom: ")
    assert shown.err.count("\n") == 1
    for part in parts:
        assert part in shown.err
