"""A cell asks lm-eval's tasks with its options: solved examples, chat templates, cut prompts."""

import copy
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.tasks.chat import conversation
from harness.tasks.lm_eval import LmEval
from tests.harness.cli_runs import run
from tests.tasks.lm_eval_runs import (
    BUNDLED,
    NUM_SAMPLES,
    SHORT,
    TOLERANCE,
    hf,
    needs_lm_eval,
    numbers,
    said,
    task_folders,
)
from tests.tasks.lm_eval_samples import CHAT_TEMPLATE, write_chat_model

LEAVES = ("local_gen", "local_choice", "local_likelihood")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return task_folders(tmp_path_factory.mktemp("lm_eval"))


@needs_lm_eval
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fewshot", "cut", "chat", "turns", "one_turn"])
def test_a_cell_asks_as_lm_eval_does(kind, folders, tmp_path, monkeypatch):
    names, asked = ("local_gen", "local_group"), _asked(kind, tmp_path)
    theirs = hf(folders, names, asked.options, **asked.model_options)
    task = ("task=lm_eval", f"task.names=[{','.join(names)}]", "task.builtin=false")
    task += (f"task.include={folders[1]}", f"task.num_samples={NUM_SAMPLES}", "load=batch")
    algo = ("algo=quest", "algo.retrieve.budget_tokens=64", "load.warmup_tokens=64")
    code, (record,) = run((*task, *asked.words, *algo), tmp_path / "results", monkeypatch)
    assert code == 0
    _assert_same(record, theirs)
    cut = [note for note in record["system"]["notes"] if "lost their beginning" in note]
    assert bool(cut) == (kind == "cut")
    assert not cut or cut[0].startswith(f"{4 * NUM_SAMPLES} of {4 * NUM_SAMPLES} prompts")


class _Asked(NamedTuple):
    """One way to ask, in the words of lm-eval, of its `hf` model and of ours."""

    options: dict
    model_options: dict
    words: list


def _asked(kind, tmp_path):
    asked = _Asked({}, {}, ["task.question_tokens=16"])
    if kind == "cut":
        asked.model_options["max_length"] = SHORT
        asked.words.append(f"task.max_length={SHORT}")
    if kind in ("fewshot", "turns", "one_turn"):
        asked.options["num_fewshot"] = 2
        asked.words.append("task.num_fewshot=2")
    if kind in ("chat", "turns", "one_turn"):
        turns = kind != "one_turn"
        folder = write_chat_model(tmp_path / "model", Path(BUNDLED))
        asked.options.update(apply_chat_template=True, fewshot_as_multiturn=turns)
        asked.model_options["pretrained"] = str(folder)
        asked.words.extend(("task.apply_chat_template=true", "model=hf", f"model.path={folder}"))
        asked.words.append(f"task.fewshot_as_multiturn={str(turns).lower()}")
    return asked


def _assert_same(record, theirs):
    dense = record["arms"]["dense"]["metrics"]
    for name in (*LEAVES, "local_group"):
        for key, value in numbers(theirs, name).items():
            if "stderr" not in key:
                found = dense[f"lm_eval_{name}_{key.removesuffix(',none')}"]
                assert found["value"] == pytest.approx(value, rel=TOLERANCE), (name, key)
    assert dense["lm_eval_local_group_acc"]["n"] == 2 * NUM_SAMPLES
    answers = {one["uid"]: one for one in record["samples"] if one["arm"] == "dense"}
    for name in LEAVES:
        for number, sample in enumerate(theirs["samples"][name]):
            for at, wanted in enumerate(said(sample)):
                _assert_said(answers[f"lm_eval-{name}-{number}-{at}"]["answer"], wanted)


def _assert_said(answer, wanted):
    if isinstance(wanted, str):
        assert answer == wanted
    else:
        (found,) = re.findall(r"log-likelihood (-?\d+\.\d+)", answer)
        assert float(found) == pytest.approx(wanted[0], abs=TOLERANCE + 0.005)


@needs_lm_eval
def test_a_chat_template_that_is_not_there_is_said_in_one_line(folders, tokenizer):
    common = {"builtin": False, "metadata": None, "num_samples": 2, "max_new_tokens": None}
    common |= {"names": ["local_gen"], "include": folders[1], "metric": None, "num_fewshot": None}
    common |= {"max_length": None, "fewshot_as_multiturn": True, "apply_chat_template": True}
    with pytest.raises(ValueError, match="no chat template; use false"):
        LmEval(**common, question_tokens=9, seed=0).requests(tokenizer)
    with pytest.raises(ValueError, match=r"task\.question_tokens=null: a chat template"):
        LmEval(**common, question_tokens=None, seed=0)


def test_a_template_that_refuses_a_system_message_is_given_the_others(tokenizer):
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}"
    picky = copy.deepcopy(tokenizer)
    picky.chat_template = refuse + CHAT_TEMPLATE
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert conversation(picky, messages) == "<user> Why?\n<assistant>"
    picky.chat_template = CHAT_TEMPLATE
    assert conversation(picky, messages).startswith("<system> Be brief.\n<user> Why?")
