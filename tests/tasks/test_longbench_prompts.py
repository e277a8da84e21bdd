"""LongBench's prompts: the original's bytes from lm-eval's task files, or from a file given."""

import hashlib
import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from harness.tasks.longbench_prompts import ONE_NEWLINE, STRIPPED_ENDS, corrected, templates
from harness.tasks.longbench_table import SUBSETS
from tests.tasks.longbench_settings import PROMPTS, ROOT

needs_lm_eval = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed")
# Ends of the original's prompts that lm-eval's task files lack, or have otherwise.
ENDS = {
    "passage_count": "is: ", "passage_retrieval_en": "is: ", "lcc": "code:\n",
    "repobench-p": "code:\n", "triviaqa": "\n\nQ", "samsum": "\n\nQ", "trec": "C\nQ",
    "lsht": "C\nQ", "narrativeqa": "\n\nAnswer:", "gov_report": "Summary:",
}  # fmt: skip


@needs_lm_eval
def test_the_prompts_of_lm_eval_are_corrected_to_the_original_bytes():
    of_names = templates(None, list(SUBSETS))
    assert len(of_names) == 21
    for name, template in of_names.items():
        text = template.prompt("{context}", "{input}")
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == SUBSETS[name].prompt, name
        assert template.original
    for name, end in ENDS.items():
        assert of_names[name].prompt("C", "Q").endswith(end), name
    assert of_names["narrativeqa"].head.count("asconcisely") == 1


@needs_lm_eval
def test_lm_eval_is_found_and_not_imported():
    code = (
        "import sys; from harness.tasks.longbench_prompts import templates; "
        "templates(None, ['lcc']); assert 'lm_eval' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", [*ONE_NEWLINE, *STRIPPED_ENDS, "trec"])
def test_a_prompt_that_needs_no_correction_stays(name):
    once = corrected(name, "{context}\n{input}:")
    assert corrected(name, once) == once
    assert (once == "{context}\n{input}:") == (name == "trec")


def test_a_file_of_prompts_is_taken_as_it_is():
    of_names = templates(str(PROMPTS), ["lcc", "qasper"])
    assert of_names["lcc"].prompt("C", "Q") == "Code to go on with:\nCOne more line:\n"
    assert of_names["qasper"].prompt("C", "Q") == "Text:\nC\n\nAsked: Q\nSaid: "
    assert not of_names["lcc"].original


def test_a_context_may_hold_what_looks_like_a_place():
    template = templates(str(PROMPTS), ["qasper"])["qasper"]
    assert template.prompt("{input}", "{context}") == "Text:\n{input}\n\nAsked: {context}\nSaid: "


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"lcc":\n oops}', "line 2: Expecting value"),
        ("[]", "must be an object"),
        ("{}", "has no prompt of lcc"),
        (json.dumps({"lcc": "{input}"}), "must hold {context} once"),
        (json.dumps({"lcc": "{input}{context}"}), "behind it"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_off_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "prompts.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError) as refused:
        templates(str(path), ["lcc"])
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_lm_eval_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr("harness.tasks.longbench_prompts.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'kvloom\[eval\]', or give task.prompts="):
        templates(None, ["lcc"])
