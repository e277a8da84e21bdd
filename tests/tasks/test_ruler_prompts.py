"""RULER's prompts to the byte, and what a sample holds."""

import json
import re
from itertools import pairwise
from random import Random

import pytest

from harness.tasks.haystacks import DEPTHS, Noise, Prose
from harness.tasks.ruler import TASKS
from harness.tasks.words import random_key
from tests.tasks.ruler_settings import NOISE, NOISE_LINE_TOKENS, ROOT, prompt, settings


def test_single_needle_prompt_is_rulers_to_the_byte(tokenizer):
    ruler = settings("ruler_original", tasks=["niah_single_1"], length=512, num_samples=3)
    for request in ruler.requests(tokenizer):
        key, (value,) = request.metadata["query"], request.references
        needle = f"One of the special magic numbers for {key} is: {value}."
        head, *lines = request.context.split("\n")
        assert head == (
            "A special magic number is hidden within the following text. Make sure to memorize it. "
            "I will quiz you about the number afterwards."
        )
        assert sorted(lines) == sorted([NOISE] * (len(lines) - 1) + [needle])
        assert lines[-1] == NOISE, "RULER's indexes never put a needle after the last line"
        assert request.question == (
            f"\nWhat is the special magic number for {key} mentioned in the provided text? "
            f"The special magic number for {key} mentioned in the provided text is"
        )
        assert request.max_new_tokens == 128
        assert request.metadata["variant"] == "original"


def test_uuid_values_are_version_4_and_named_in_every_place(tokenizer):
    ruler = settings("ruler", tasks=["niah_multikey_1"], length=1024, values="uuids")
    for request in ruler.requests(tokenizer):
        assert re.fullmatch(
            r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
            request.references[0],
        )
        assert prompt(request).startswith("A special magic uuid is hidden within")
        assert request.context.count("One of the special magic uuids for ") == 4
        assert "quiz you about the uuid afterwards.\n" in request.context
        assert request.question.startswith("\nWhat is the special magic uuid for ")
        assert request.question.endswith(" mentioned in the provided text is")
        assert "values=uuids" in request.metadata["variant"]


def test_variable_tracking_prompt_is_rulers_to_the_byte(tokenizer):
    ruler = settings("ruler_original", tasks=["vt"], length=1024, num_samples=3)
    for request in ruler.requests(tokenizer):
        example, asked = request.context.split("\n\nMemorize and track")
        example = example.removeprefix("Memorize and track")
        example_value = re.search(r"VAR [A-Z]{3} = (\d{5})\n", example)[1]
        example_names = re.findall(r"\nVAR ([A-Z]{3}) = ", example)
        assert len(example_names) == 5
        assert example.endswith(
            f"\nQuestion: Find all variables that are assigned the value {example_value} in the "
            "text above. Answer: According to the chain(s) of variable assignment in the text "
            f"above, 5 variables are assigned the value {example_value}, they are:  "
            + " ".join(example_names)
        )
        names, value = request.references, request.metadata["query"]
        assert value != example_value
        statements = [f"VAR {names[0]} = {value}"]
        statements += [f"VAR {after} = VAR {before} " for before, after in pairwise(names)]
        first, blank, *lines = asked.split("\n")
        assert first == " the chain(s) of variable assignment hidden in the following text."
        assert blank == ""
        assert [line for line in lines if line != NOISE] == statements
        assert all(re.fullmatch("[A-Z]{5}", name) for name in names)
        assert request.question == (
            f"\nQuestion: Find all variables that are assigned the value {value} in the text above."
            " Answer: According to the chain(s) of variable assignment in the text above, "
            f"5 variables are assigned the value {value}, they are: "
        )
        assert request.max_new_tokens == 30
        assert request.metadata["variant"] == "original"


def test_the_solved_example_fills_500_tokens_and_is_renamed_in_every_sample(tokenizer):
    ruler = settings("ruler_original", tasks=["vt"], length=1024, num_samples=4)
    examples = [
        request.context[: request.context.index("\n\nMemorize")]
        for request in ruler.requests(tokenizer)
    ]
    for example in examples:
        unsolved = example[: example.index("they are: ") + len("they are: ")]
        assert 500 - NOISE_LINE_TOKENS < len(tokenizer.encode(unsolved)) <= 500
    assert len(set(examples)) == 4
    places = [[line != NOISE for line in example.split("\n")] for example in examples]
    assert places[0] == places[1] == places[2] == places[3]


def test_the_solved_example_shares_no_name_with_the_question(tokenizer):
    ruler = settings("ruler", tasks=["vt"], length=1024, num_samples=60, vt_example=True)
    for request in ruler.requests(tokenizer):
        example, asked = request.context.split("\n\nMemorize")
        example_names = example.rsplit("they are:  ")[1].split()
        assert len(set(example_names)) == 5
        assert not set(example_names) & set(request.references)
        assert all(f" {name} = " in asked for name in request.references)


def test_variable_tracking_for_the_bundled_model_is_one_paragraph_of_closed_sentences(tokenizer):
    pool = (ROOT / "harness/tasks/data/vt_names.txt").read_text().split()
    for request in settings("ruler", tasks=["vt"], length=1024).requests(tokenizer):
        names, value = request.references, request.metadata["query"]
        body = request.context.split("\n\n")[1]
        rest = body.replace(NOISE, "")
        statements = [f"VAR {names[0]} = {value}."]
        statements += [f"VAR {after} = VAR {before}." for before, after in pairwise(names)]
        assert " ".join(rest.split()) == " ".join(statements)
        assert set(names) <= set(pool)
        assert all(len(tokenizer.encode(f" {name}")) == 2 for name in names), "start and name"
        assert request.question.endswith("they are:")
        assert request.metadata["variant"] == (
            "vt_joiner=space, vt_names=pool, vt_example=false, strip_prompt=true, max_new_tokens=32"
        )


def test_multikey_in_prose_stands_at_sentence_ends_and_says_so(tokenizer):
    ruler = settings("ruler_original", tasks=["niah_multikey_1"], length=1024, num_samples=8)
    prose = " ".join((ROOT / "harness/tasks/data/prose.txt").read_text().split())
    needle = r"One of the special magic numbers for [^:]* is: \d{7}\."
    for request in ruler.requests(tokenizer):
        body = request.context.split("\n", 1)[1]
        # The last sentence is cut where the length is full, and a needle may stand after it.
        assert len(re.findall(rf"(?:(?<=^ )|(?<=[.!?] )){needle}|{needle} $", body)) == 4
        assert prose.startswith(" ".join(re.sub(needle, "", body).split()))
        assert request.metadata["variant"] == "haystack=prose"


def test_variable_tracking_in_prose_keeps_the_order_of_the_chain(tokenizer):
    ruler = settings("ruler_original", tasks=["vt"], length=2048, num_samples=4, haystack="prose")
    for request in ruler.requests(tokenizer):
        names = re.findall(r"VAR ([A-Z]{5}) = [^.]*\.", request.context)
        assert tuple(names) == request.references
        assert request.metadata["variant"] == "haystack=prose"


def test_depths_are_rulers_forty():
    numpy = pytest.importorskip("numpy")
    expected = numpy.round(numpy.linspace(0, 100, num=40, endpoint=True)).astype(int)
    assert tuple(expected.tolist()) == DEPTHS


def test_prose_is_repeated_when_it_runs_out():
    prose = (ROOT / "harness/tasks/data/prose.txt").read_text().split()
    text = Prose().hide(["NEEDLE."], 2 * len(prose) + 7, Random(0))
    words = [word for word in text.split() if word != "NEEDLE."]
    assert words == prose + prose + prose[:7]


def test_a_needle_takes_many_places():
    for haystack, size in ((Noise(), 12), (Prose(), 500)):
        places = {haystack.hide(["NEEDLE."], size, Random(i)).index("NEEDLE.") for i in range(60)}
        assert len(places) > 8


def test_a_noise_line_follows_every_statement():
    for seed in range(20):
        lines = Noise().hide(["A", "B", "C"], 4, Random(seed)).split("\n")
        assert [line for line in lines if line != NOISE] == ["A", "B", "C"]
        assert all(NOISE in pair for pair in pairwise(lines))
        assert lines[-1] == NOISE


def test_keys_are_an_adjective_and_a_noun():
    keys = {random_key(Random(seed)) for seed in range(20)}
    assert len(keys) == 20
    assert all("-" in key for key in keys)


@pytest.mark.parametrize("config", ["ruler", "ruler_original"])
@pytest.mark.parametrize("haystack", ["noise", "prose"])
def test_a_needles_answer_is_in_its_context_once(tokenizer, config, haystack):
    ruler = settings(
        config, tasks=["niah_single_1", "niah_multikey_1"], num_samples=8, haystack=haystack
    )
    for request in ruler.requests(tokenizer):
        (value,) = request.references
        needle = f"One of the special magic numbers for {request.metadata['query']} is: {value}."
        assert request.context.count(needle) == 1
        assert prompt(request).count(value) == 1
        num_keys = {"niah_single_1": 1, "niah_multikey_1": 4}[request.task]
        assert len(set(request.metadata["keys"])) == num_keys
        assert len(set(request.metadata["values"])) == num_keys


@pytest.mark.parametrize("config", ["ruler", "ruler_original"])
def test_every_name_is_assigned_from_the_one_before_it(tokenizer, config):
    for request in settings(config, tasks=["vt"], num_samples=8).requests(tokenizer):
        names = request.references
        assert len(set(names)) == 5
        starts = [request.context.index(f"VAR {names[0]} = {request.metadata['query']}")]
        starts += [request.context.index(f"VAR {b} = VAR {a}") for a, b in pairwise(names)]
        assert starts == sorted(starts)
        depths = [start / len(request.context) for start in starts]
        assert request.metadata["depths"] == pytest.approx(depths, abs=1e-3)


def test_the_asked_key_is_any_of_the_four_and_at_any_depth(tokenizer):
    ruler = settings("ruler", tasks=["niah_multikey_1"], num_samples=40, length=1024)
    requests = ruler.requests(tokenizer)
    asked = {r.metadata["keys"].index(r.metadata["query"]) for r in requests}
    assert asked == {0, 1, 2, 3}
    answers = [r.context.index(r.references[0]) / len(r.context) for r in requests]
    assert min(answers) < 0.25
    assert max(answers) > 0.75


@pytest.mark.parametrize("config", ["ruler", "ruler_original"])
def test_requests_are_json_and_named_once(tokenizer, config):
    requests = settings(config, num_samples=3).requests(tokenizer)
    assert [request.task for request in requests] == [task for task in TASKS for _ in range(3)]
    assert len({request.uid for request in requests}) == 9
    for request in requests:
        assert json.loads(json.dumps(request.metadata)) == request.metadata
        assert request.question.startswith("\n")
        assert not request.context.endswith("\n")
