"""LongBench's scores on vectors worked out by hand, and where lm-eval's differ from them."""

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from random import Random

import pytest

from harness.tasks.longbench_scores import METRICS, PARAGRAPH, best_score
from harness.tasks.longbench_table import SUBSETS

LM_EVAL = find_spec("lm_eval")
needs_lm_eval = pytest.mark.skipif(LM_EVAL is None, reason="lm-eval is not installed")

I_LOVE_BEIJING = "\u6211\u7231\u5317\u4eac"
SQUARE = "\u5929\u5b89\u95e8"
BEIJING_SQUARE = f"\u5317\u4eac{SQUARE}\u3002"
I_LOVE_SHANGHAI = "\u6211\u7231\u4e0a\u6d77"
OPENING, CLOSING = "\u300a", "\u300b"
PARAGRAPH_7 = "\u6bb5\u843d7"
CLASSES = ("Food", "Person", "Number", "Number of people")
NESTED = ("num", "number", "number of people")

VECTORS = [
    # 3 words of 4 and of 3: 2 * 0.75 * 1 / 1.75.
    ("qa_f1", "The cat sat, on a mat!", "cat on mat", (), 6 / 7),
    ("qa_f1", "well-known", "wellknown", (), 1.0),
    ("qa_f1", "cat cat", "cat", (), 2 / 3),
    # Punctuation goes before articles do: A.N. becomes one, and nothing is left.
    ("qa_f1", "A.N.", "A.N.", (), 0.0),
    ("qa_f1", "", "cat", (), 0.0),
    # 2 words of 4 (I, love, Beijing, its square) and of 2: 2 * 0.5 * 1 / 1.5.
    ("qa_f1_zh", I_LOVE_BEIJING + SQUARE, BEIJING_SQUARE, (), 2 / 3),
    # The original strips the closing bracket of a title and forgets the opening one.
    ("qa_f1_zh", OPENING, OPENING, (), 1.0),
    ("qa_f1_zh", CLOSING, CLOSING, (), 0.0),
    ("rouge", "the cat sat", "the cat ran", (), 2 / 3),
    # The package counts a word once: both are {a, b} to it.
    ("rouge", "a a a b", "a b", (), 1.0),
    ("rouge", "", "a b", (), 0.0),
    ("rouge", "...", "a b", (), 0.0),
    # Chinese without spaces would be one word, and score 0.
    ("rouge_zh", I_LOVE_BEIJING, I_LOVE_SHANGHAI, (), 2 / 3),
    ("classification", "It is Food.", "Food", CLASSES, 1.0),
    ("classification", "Food or Person", "Food", CLASSES, 1 / 2),
    ("classification", "Food or Person", "Number", CLASSES, 0.0),
    ("classification", "food", "Food", CLASSES, 0.0),
    # The truth holds another class, which does not count; the other way round it does.
    ("classification", "Number of people", "Number of people", CLASSES, 1.0),
    ("classification", "Number of people", "Number", CLASSES, 1 / 2),
    # Two of the classes lie in the truth, and taking the first out passes over the second.
    ("classification", "number of people", "number of people", NESTED, 1 / 2),
    ("count", "3 of 30, so 3", "3", (), 2 / 3),
    ("count", "03", "3", (), 0.0),
    ("count", "three", "3", (), 0.0),
    ("retrieval", "Paragraph 7", "Paragraph 7", (), 1.0),
    ("retrieval", "7 or 17", "Paragraph 7", (), 1 / 2),
    ("retrieval_zh", PARAGRAPH_7, PARAGRAPH_7, (), 1.0),
    ("retrieval_zh", "17", PARAGRAPH_7, (), 0.0),
    # 3 letters in common, of 4 and 4.
    ("code_sim", "abcd", "bcde", (), 0.75),
    ("code_sim", "\n\n# one\n// two\n```python\nx = 1\ny = 2", "x = 1", (), 1.0),
    ("code_sim", "# only a comment", "x = 1", (), 0.0),
    # Blanks are a line of code: 2 of them in common, of 2 and 5 letters, 4 / 7 in whole per cent.
    ("code_sim", "  \nx = 1", "x = 1", (), 0.57),
]
# Answer, reference and classes, then what the original gives, and what lm-eval's function does.
DIFFERING = [
    ("trec", "\nFood\nPerson", "Food", CLASSES, 1.0, 1 / 2),
    ("triviaqa", "\nParis\nBerlin", "Paris", (), 1.0, 2 / 3),
    ("samsum", "a b\nc d", "a b", (), 1.0, 2 / 3),
    ("lcc", "  \nx = 1", "x = 1", (), 0.57, 1.0),
    # A blank after the last stop is a sentence to the package: 3 words, one of them empty.
    ("gov_report", "a b.\n", "a b.", (), 0.8, 1.0),
]


def lm_eval_scores():
    """Its file of scores alone: the package would import for seconds."""
    folder = Path(next(iter(LM_EVAL.submodule_search_locations)))
    spec = spec_from_file_location("its_scores", folder / "tasks" / "longbench" / "metrics.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: getattr(module, f"get_{name}_score") for name in METRICS}


def lm_eval_score(scores, metric, answer, reference, classes):
    doc = {"answers": [reference], "all_classes": classes}
    (score,) = scores[metric](doc, [answer]).values()
    return score


@pytest.mark.parametrize(("metric", "answer", "reference", "classes", "expected"), VECTORS)
def test_a_score_is_what_its_formula_gives(metric, answer, reference, classes, expected):
    assert METRICS[metric](answer, reference, classes) == pytest.approx(expected, abs=1e-7)


def test_every_metric_has_vectors_and_a_task():
    tested = {metric for metric, *_ in VECTORS}
    assert tested == set(METRICS) == {subset.metric for subset in SUBSETS.values()}
    assert set(PARAGRAPH) < tested


def test_the_best_reference_counts():
    assert best_score("qa_f1", "Ada", ["Bruno", "Ada", "Clara"], (), first_line=False) == 1


@pytest.mark.parametrize(("task", "answer", "reference", "classes", "ours", "theirs"), DIFFERING)
def test_lines_count_as_in_the_original(task, answer, reference, classes, ours, theirs):
    subset = SUBSETS[task]
    score = best_score(subset.metric, answer, [reference], classes, first_line=subset.first_line)
    assert score == pytest.approx(ours, abs=1e-7)
    assert ours != theirs


@needs_lm_eval
@pytest.mark.parametrize(("task", "answer", "reference", "classes", "ours", "theirs"), DIFFERING)
def test_lm_eval_differs_where_it_is_said_to(task, answer, reference, classes, ours, theirs):
    metric = SUBSETS[task].metric
    score = lm_eval_score(lm_eval_scores(), metric, answer, reference, classes)
    assert score == pytest.approx(theirs, abs=1e-7)


@needs_lm_eval
@pytest.mark.parametrize("metric", METRICS)
def test_scores_equal_lm_eval_s_on_random_texts(metric):
    rng, scores = Random(f"longbench {metric}"), lm_eval_scores()
    pieces = [*CLASSES, *NESTED, "the", "a", "cat.", "7", "17", "#", "x = 1", "`", "\n", " ",
              I_LOVE_BEIJING, SQUARE, "\u3002", OPENING, CLOSING, "Paragraph 7"]  # fmt: skip
    seen = set()
    for _ in range(300):
        # Where the two agree: no blanks at the ends.
        answer = " ".join(["x", *rng.choices(pieces, k=rng.randint(0, 8)), "y"])
        reference = rng.choice([*CLASSES, *NESTED]) if metric == "classification" else (
            {"retrieval": "Paragraph 7", "retrieval_zh": PARAGRAPH_7, "count": "7"}.get(metric)
            or " ".join(rng.choices(pieces, k=rng.randint(1, 8)))
        )  # fmt: skip
        classes = (*CLASSES, *NESTED)
        ours = METRICS[metric](answer, reference, classes)
        assert ours == lm_eval_score(scores, metric, answer, reference, classes)
        seen.add(ours)
    assert len(seen) > 2
