"""The comparison of algorithms: same contexts, a front that is one, and a study that goes on."""

import json
from pathlib import Path

import pytest

from harness.studies.algorithm_pairs import separations
from harness.studies.algorithm_points import on_front, summarised, told_apart
from harness.studies.algorithms_picture import draw
from tests.harness.cli_runs import run

WORDS = (
    "experiment=algorithms",
    "study.algorithms=[quest,streaming,oracle_topk]",
    "study.budgets=[8,64,256]",
    "study.lengths=[512]",
    "study.samples=[1]",
    "task.max_new_tokens=8",
)


def point(score: float, kv_read: float, **more):
    return {"length": 1, "algo": "a", "score": score, "kv_read": kv_read, "bound": False} | more


def test_the_front_holds_what_nothing_else_beats():
    points = [
        point(0.5, 0.1),
        point(0.5, 0.2),
        point(0.9, 0.2),
        point(0.9, 0.2),
        point(0.4, 0.05),
        point(1.0, 0.01, bound=True),
        point(1.0, 0.01, length=2),
        {"length": 1, "algo": "b", "refused": "why"},
    ]
    front = [on_front(one, points) for one in points]
    assert front == [True, False, True, True, True, False, True, False]


def test_a_task_counts_once_however_many_requests_it_has():
    def answer(algo: str, task: str, score: float, read: int):
        return {
            "length": 1, "algo": algo, "budget": None, "task": task, "score": score,
            "tokens": 2, "decode_steps": 2, "bytes_read": read, "slots_wanted": 1,
            "slots_context": 4, "index_bytes": 5,
        }  # fmt: skip

    answers = [
        answer("dense", "x", 1.0, 80),
        answer("a", "x", 1.0, 20),
        answer("a", "x", 0.0, 20),
        answer("a", "y", 0.0, 20),
    ]
    found = {one["algo"]: one for one in summarised(answers)}
    assert found["a"]["score"] == 0.25
    assert found["a"]["kv_read"] == 0.25
    assert found["a"]["wanted"] == 0.25


def test_what_dense_does_not_solve_is_left_out_at_that_length():
    def answer(length: int, algo: str, task: str, score: float):
        return {"length": length, "algo": algo, "task": task, "score": score}

    answers = [
        answer(length, algo, task, score)
        for length, task, dense in ((1, "x", 1.0), (1, "y", 0.75), (2, "y", 0.9))
        for algo, score in (("dense", dense), ("quest", 1.0))
    ]
    kept, left_out = told_apart(answers, 0.9)
    assert {(one["length"], one["task"]) for one in kept} == {(1, "x"), (2, "y")}
    assert left_out == [{"length": 1, "task": "y", "dense": 0.75}]


def scored(algo: str, budget: int | None, scores: str):
    return [
        {"length": 1, "algo": algo, "budget": budget, "uid": str(uid), "score": float(score)}
        for uid, score in enumerate(scores)
    ]


def test_pairs_are_separated_where_the_same_requests_were_lost():
    answers = [
        *scored("dense", None, "1" * 20),
        *scored("good", 8, "1" * 19 + "0"),
        *scored("bad", 8, "0" * 19 + "1"),
        *scored("other", 64, "0" * 20),
        {"length": 1, "algo": "none", "budget": 8, "refused": "why"},
    ]
    at_8, at_64 = separations(answers, [8, 64])
    assert at_8["better"] == {"dense": ["bad"], "good": ["bad"], "bad": []}
    assert (at_8["num_pairs"], at_8["num_separated"]) == (3, 2)
    assert at_64["better"] == {"dense": ["other"], "other": []}


def test_many_pairs_ask_more_of_each():
    few = [*scored("a", None, "1" * 6), *scored("b", None, "0" * 6)]
    assert separations(few, [8])[0]["num_separated"] == 1
    many = [one for name in "cdef" for one in scored(name, None, "1" * 6)]
    assert separations(few + many, [8])[0]["num_separated"] == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("study")


def study(folder: Path, *more: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        code, _ = run((*WORDS, f"study.cells={folder}/cells", *more), folder, patch)
    return code


def found_in(folder: Path) -> dict:
    (newest,) = sorted(folder.glob("*-algorithms-*/algorithms.json"))[-1:]
    return json.loads(newest.read_bytes())


def quests(found: dict) -> list[dict]:
    return [one for one in found["points"] if one["algo"] == "quest"]


def test_a_study_answers_once_and_goes_on_where_it_was(folder):
    assert study(folder) == 0
    found = found_in(folder)
    scored = {(one["algo"], one["budget"]) for one in found["points"] if "score" in one}
    assert {("dense", None), ("quest", 64), ("quest", 256), ("streaming", 64)} <= scored
    (refused,) = {one["refused"] for one in quests(found) if "refused" in one}
    assert "budget_tokens=8" in refused
    cells = sorted((folder / "cells").rglob("*.json"))
    assert len(cells) == 3
    marked = json.loads(cells[0].read_bytes())
    key = next(name for name in marked if name.startswith("quest@64"))
    marked[key]["score"] = 0.123
    cells[0].write_text(json.dumps(marked))
    cells[1].write_text('{"cut off')
    assert study(folder) == 0
    later = found_in(folder)
    (tasks,) = (one["tasks"] for one in quests(later) if one["budget"] == 64)
    assert 0.123 in tasks.values()
    others = [one for one in found["points"] if one["algo"] != "quest"]
    assert others == [one for one in later["points"] if one["algo"] != "quest"]
    assert {"algorithms.png", "algorithms_tokens.svg"} <= draw(later).keys()


def test_single_algorithms_take_settings_of_their_own(folder):
    """More of them read densely reads more; the others are as they were."""
    assert study(folder) == 0
    plain = found_in(folder)
    assert study(folder, "study.settings={quest: ['algo.dense_layers=1']}") == 0
    found = found_in(folder)
    assert found["settings"] == {"quest": ["algo.dense_layers=1"]}
    for one, before in zip(found["points"], plain["points"], strict=True):
        if one["algo"] == "quest" and "score" in one:
            assert one["kv_read"] > before["kv_read"]
        else:
            assert one == before


def test_a_batch_is_answered_as_each_alone(tmp_path):
    folders = [tmp_path / name for name in ("together", "alone")]
    for folder, load in zip(folders, ("batch", "single"), strict=True):
        assert study(folder, f"load={load}") == 0
    together, alone = (found_in(folder)["points"] for folder in folders)
    for point in (*together, *alone):
        point.pop("index_bytes", None)
    assert together == alone


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["study.algorithms=[quest,nothing]"], "nothing"),
        (["study.settings={nothing: ['algo.dense_layers=1']}"], "study.settings names 'nothing'"),
        (["study.settings={quest: ['tier=hbm+cpu']}"], "study.settings.quest has 'tier=hbm+cpu'"),
        (["study.settings={quest: ['algo.nothing=1']}"], "algo.nothing"),
        (["study.budgets=[64,8]"], "study.budgets"),
        (["study.samples=[1,2]"], "study.samples"),
        (["study.least_dense=1.01"], "study.least_dense=1.01"),
    ],
)
def test_a_study_that_cannot_be_is_refused_in_one_line(folder, words, named, capsys):
    assert study(folder, *words) == 2
    said = capsys.readouterr().err
    assert named in said
    assert said.count("\n") == 1
