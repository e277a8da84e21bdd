"""RULER's scorers on vectors worked out by hand, and where lm-eval's differ."""

import pytest

from harness.tasks.base import TaskRequest
from harness.tasks.string_match import match_all, match_part
from tests.tasks.ruler13_settings import settings13

# answer, references, string_match_all, string_match_part
VECTORS = [
    (" 1234567.", ("1234567",), 1.0, 1.0),
    ("123456", ("1234567",), 0.0, 0.0),
    ("", ("1234567",), 0.0, 0.0),
    ("ab, Cd and GH", ("AB", "CD", "EF", "GH", "IJ"), 0.6, 1.0),
    ("PARIS, of course", ("Paris", "the city of Paris"), 0.5, 1.0),
    ("Lyon", ("Paris", "the city of Paris"), 0.0, 0.0),
    ("AB\x00CD", ("AB", "CD"), 1.0, 1.0),
    ("A\tB", ("A\nB",), 1.0, 1.0),
    ("\x00\x1f 42 \x07", ("42",), 1.0, 1.0),
    ("A\x0bB", ("AB",), 0.0, 0.0),
    ("cat", ("catalogue", "cat"), 0.5, 1.0),
]


@pytest.mark.parametrize(("answer", "references", "every", "part"), VECTORS)
def test_scores_are_rulers(answer, references, every, part):
    assert match_all(answer, references) == pytest.approx(every)
    assert match_part(answer, references) == part


def score(task, answer, references):
    one = TaskRequest(
        uid="0", task=task, context="", question="", references=references, max_new_tokens=1
    )
    return settings13().score(one, answer)


def test_one_of_many_references_is_a_right_answer_to_a_question():
    """lm-eval 0.4.13 gives 0.25: its string_match_part averages over the references."""
    references = ("France", "in France", "the country France", "FRANCE (Europe)")
    for task in ("qa_1", "qa_2", "qa_1_offline", "qa_2_offline"):
        assert score(task, "france", references) == 1.0


@pytest.mark.parametrize("task", ["niah_multivalue", "niah_multivalue_offline", "vt", "cwe", "fwe"])
def test_elsewhere_each_reference_counts(task):
    assert score(task, "one and three", ("one", "two", "three", "four")) == 0.5


def test_lm_eval_differs_where_we_say_it_does():
    common = pytest.importorskip("lm_eval.tasks.ruler.common_utils")
    for answer, references, every, _ in VECTORS:
        said = common.postprocess_pred([answer])
        assert common.string_match_all(said, [list(references)]) == pytest.approx(every)
    part = common.string_match_part(["france"], [["France", "in France", "Gaul", "Frankia"]])
    assert part == pytest.approx(0.25)
