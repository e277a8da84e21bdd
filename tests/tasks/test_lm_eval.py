"""lm-eval both ways: our dense system says what its `hf` model says, through either harness."""

import json
import sys
from pathlib import Path

import pytest

from harness.evaluator import command
from harness.evaluator.defects import defects
from harness.evaluator.model import as_overrides, model_class
from harness.tasks.lm_eval import LmEval
from tests.harness.cli_runs import run
from tests.tasks.lm_eval_runs import (
    LENGTH,
    NAMES,
    NUM_SAMPLES,
    RULER,
    SHORT,
    TOLERANCE,
    evaluated,
    hf,
    needs_lm_eval,
    numbers,
    said,
    task_folders,
)
from tests.tasks.lm_eval_samples import KINDS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return task_folders(tmp_path_factory.mktemp("lm_eval"))


@pytest.fixture(scope="module")
def theirs(folders):
    return hf(folders)


def assert_same(ours, theirs, name):
    ours_of, theirs_of = ours["samples"][name], theirs["samples"][name]
    assert len(ours_of) == len(theirs_of) == NUM_SAMPLES
    for one, other in zip(ours_of, theirs_of, strict=True):
        assert one["doc_hash"] == other["doc_hash"]
        assert one["arguments"] == other["arguments"]
        for mine, wanted in zip(said(one), said(other), strict=True):
            if isinstance(mine, str):
                assert mine == wanted
            elif isinstance(mine, float):
                assert mine == pytest.approx(wanted, abs=TOLERANCE)
            else:
                assert mine[0] == pytest.approx(wanted[0], abs=TOLERANCE)
                assert mine[1] == wanted[1]
    assert numbers(ours, name) == pytest.approx(numbers(theirs, name), rel=TOLERANCE)


@needs_lm_eval
@pytest.mark.slow
def test_dense_equals_the_hf_model(folders, theirs):
    small = {"backend.chunk_tokens": 256, "backend.max_batch": 3}
    ours = evaluated(model_class()(algo="dense", **small), folders)
    for name in NAMES:
        assert_same(ours, theirs, name)
    assert numbers(ours, "niah_single_1")[f"{LENGTH},none"] == 1
    assert numbers(ours, "local_gen")["exact_match,none"] == 1


@needs_lm_eval
@pytest.mark.slow
def test_contexts_that_are_too_long_lose_their_beginning_as_in_the_hf_model(folders):
    # A scored text longer than the model is cut into windows.
    ours = evaluated(model_class()(algo="dense", max_length=SHORT), folders, tuple(KINDS))
    theirs = hf(folders, tuple(KINDS), max_length=SHORT)
    for name in KINDS:
        assert_same(ours, theirs, name)


@needs_lm_eval
@pytest.mark.slow
def test_the_command_line_knows_our_model_by_its_name(folders, theirs, tmp_path, monkeypatch):
    words = ["--model", "kvloom", "--model_args", "algo=dense,backend.chunk_tokens=256"]
    words += ["--tasks", "local_gen,local_choice", "--limit", str(NUM_SAMPLES)]
    words += ["--include_path", folders[1], "--output_path", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["kvloom-lm-eval", *words])
    assert command.main() == 0
    (path,) = tmp_path.rglob("results_*.json")
    results = json.loads(path.read_text())
    assert results["config"]["model_dtype"] == "torch.float32"
    for name, metric in (("local_gen", "exact_match"), ("local_choice", "acc")):
        found = results["results"][name][f"{metric},none"]
        assert found == theirs["results"][name][f"{metric},none"]


@needs_lm_eval
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["own", "ruler"])
def test_a_cell_gets_what_lm_eval_gets(kind, folders, theirs, tmp_path, monkeypatch):
    names = tuple(KINDS) if kind == "own" else RULER
    task = ["task=lm_eval", f"task.names=[{','.join(names)}]", "task.builtin=false"]
    task += [f"task.include={folders[kind == 'own']}", f"task.num_samples={NUM_SAMPLES}"]
    task += [f"task.metadata={{max_seq_lengths:[{LENGTH}]}}", "load=batch"]
    algo = ("algo=quest", "algo.retrieve.budget_tokens=64", "load.warmup_tokens=64")
    code, (record,) = run((*task, *algo), tmp_path, monkeypatch)
    assert code == 0
    assert any("the last 64 tokens of each prompt" in note for note in record["system"]["notes"])
    dense = record["arms"]["dense"]
    answers = {one["uid"]: one for one in record["samples"] if one["arm"] == "dense"}
    for name in names:
        for key, value in numbers(theirs, name).items():
            metric, _, kept = key.partition(",")
            assert kept == "none"
            found = dense["metrics"].get(f"lm_eval_{name}_{metric}")
            assert (found is None) == (value == -1)
            assert found is None or found["value"] == pytest.approx(value, rel=TOLERANCE)
        for number, sample in enumerate(theirs["samples"][name]):
            first = answers[f"lm_eval-{name}-{number}-0"]
            wanted = said(sample)[0]
            assert first["answer"] == wanted or first["answer"].startswith("log-likelihood")
    sparse = record["arms"]["quest"]["metrics"]
    assert sparse.keys() == dense["metrics"].keys()


@needs_lm_eval
def test_the_question_can_be_what_follows_the_solved_examples(folders, tokenizer):
    common = {"builtin": False, "metadata": None, "num_samples": 2, "max_new_tokens": None}
    common |= {"names": ["local_gen", "local_likelihood"], "include": folders[1], "metric": None}
    common |= {"max_length": None, "fewshot_as_multiturn": True, "apply_chat_template": False}
    task = LmEval(**common, num_fewshot=1, question_tokens=None, seed=0)
    made = task.requests(tokenizer)
    rows = (Path(folders[1]) / "documents.jsonl").read_text().splitlines()
    texts = [json.loads(row)["text"] for row in rows[:2]]
    assert [one.question for one in made] == texts * 2
    assert all("special magic number" in one.context for one in made)
    assert [one.continuation is None for one in made] == [True, True, False, False]
    assert "solved examples" in task.notes[0]
    whole = LmEval(**common, num_fewshot=1, question_tokens=9, seed=0).requests(tokenizer)
    assert [one.context for one in whole] == [one.context + one.question for one in made]


def test_what_is_known_to_be_off_is_said_of_the_tasks_it_is_off_in():
    assert defects(["arc_easy"]) == []
    assert len(defects(["niah_single_1"])) == 1
    for name in ("niah_single_3", "niah_multikey_1", "niah_multivalue", "niah_multiquery"):
        assert any("repeats the corpus" in line for line in defects([name])), name
    for name in ("niah_multikey_2", "niah_multikey_3", "ruler_fwe"):
        assert not any("repeats the corpus" in line for line in defects([name])), name
    (line,) = defects(["ruler_qa_squad", "ruler_qa_hotpot"])
    assert line.startswith("lm-eval's ruler_qa_* is not the original")
    assert len(defects(["longbench_trec", "ruler_cwe"])) == 3


def test_without_the_package_one_line_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    for name in ("lm_eval", "lm_eval.tasks", "lm_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, None)
    words = ("task=lm_eval", "task.names=[local_gen]")
    assert run(words, tmp_path, monkeypatch) == (2, [])
    line = "kvloom: the package lm-eval is not installed; pip install 'kvloom[eval]'\n"
    assert capsys.readouterr().err == line
    model_class.cache_clear()
    assert command.main() == 2
    assert capsys.readouterr().err == line


def test_model_arguments_become_words_that_hydra_reads():
    parsed = {"algo": "quest", "backend.prefetch": True, "trace.path": None, "backend.max_batch": 2}
    assert as_overrides(parsed) == [
        "algo=quest", "backend.prefetch=true", "trace.path=null", "backend.max_batch=2"
    ]  # fmt: skip
