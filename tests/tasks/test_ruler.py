"""RULER's lengths, determinism, scores and settings."""

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from harness.tasks.base import TaskRequest
from harness.tasks.ruler import Ruler
from tests.tasks.byte_tokenizer import ByteTokenizer
from tests.tasks.ruler_settings import NOISE, NOISE_LINE_TOKENS, ROOT, prompt, settings

FEW_WORDS_TOKENS = 8


@pytest.mark.parametrize("length", [512, 1024, 4096, 16384])
@pytest.mark.parametrize("haystack", ["noise", "prose"])
def test_a_prompt_fills_its_length_and_never_exceeds_it(tokenizer, length, haystack):
    tolerance = {"noise": NOISE_LINE_TOKENS, "prose": FEW_WORDS_TOKENS}[haystack]
    ruler = settings("ruler", length=length, haystack=haystack, num_samples=3)
    requests = ruler.requests(tokenizer)
    assert len(requests) == 9
    for request in requests:
        used = len(tokenizer.encode(prompt(request))) + request.max_new_tokens
        assert length - tolerance < used <= length


@pytest.mark.parametrize("length", [1024, 4096])
def test_original_prompts_fill_their_length_and_never_exceed_it(tokenizer, length):
    requests = settings("ruler_original", length=length, num_samples=4).requests(tokenizer)
    for request in requests:
        used = len(tokenizer.encode(prompt(request))) + request.max_new_tokens
        assert length - NOISE_LINE_TOKENS < used <= length


def test_the_length_holds_for_a_tokenizer_of_another_kind():
    for request in settings("ruler_original", length=8192, num_samples=2).requests(ByteTokenizer()):
        used = len(prompt(request).encode()) + request.max_new_tokens
        assert 8192 - len(NOISE) - 1 <= used <= 8192


def test_new_tokens_count_into_the_length(tokenizer):
    few, many = (
        settings("ruler", max_new_tokens=count, num_samples=1).requests(tokenizer)[0]
        for count in (16, 1016)
    )
    num_few, num_many = (len(tokenizer.encode(prompt(request))) for request in (few, many))
    assert few.max_new_tokens == 16
    assert abs(num_few - num_many - 1000) < NOISE_LINE_TOKENS


@pytest.mark.parametrize("config", ["ruler", "ruler_original"])
def test_a_length_that_cannot_fit_names_the_smallest_that_does(tokenizer, config):
    ruler = settings(config, length=128, num_samples=6)
    with pytest.raises(
        ValueError, match=r"task\.length=128: .* smallest that fits is \d+$"
    ) as info:
        ruler.requests(tokenizer)
    smallest = int(str(info.value).rsplit(" ", 1)[1])
    requests = replace(ruler, length=smallest).requests(tokenizer)
    used = [len(tokenizer.encode(prompt(r))) + r.max_new_tokens for r in requests]
    assert max(used) == smallest
    with pytest.raises(ValueError, match=f"smallest that fits is {smallest}"):
        replace(ruler, length=smallest - 1).requests(tokenizer)


DIGEST = """
import hashlib
from harness.tasks.ruler import Ruler
from tests.tasks.byte_tokenizer import ByteTokenizer
requests = Ruler(**{settings!r}).requests(ByteTokenizer())
print(hashlib.sha256(repr(requests).encode()).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_builds_the_same_requests(hash_seed):
    ruler = settings("ruler_original", length=8192, num_samples=4)
    run = subprocess.run(
        [sys.executable, "-c", DIGEST.format(settings=vars(ruler))],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    requests = ruler.requests(ByteTokenizer())
    assert len(requests) == 12
    assert run.stdout.strip() == hashlib.sha256(repr(requests).encode()).hexdigest()


@pytest.mark.parametrize("config", ["ruler", "ruler_original"])
@pytest.mark.parametrize("haystack", ["noise", "prose"])
def test_more_samples_or_fewer_tasks_leave_a_sample_as_it_was(tokenizer, config, haystack):
    def by_uid(**changes):
        ruler = settings(config, length=1024, haystack=haystack, **changes)
        return {request.uid: request for request in ruler.requests(tokenizer)}

    many = by_uid(num_samples=6)
    for few in (by_uid(num_samples=2), by_uid(num_samples=3, tasks=["vt"])):
        assert few.items() <= many.items()


def test_another_seed_asks_other_questions(tokenizer):
    first, second = (
        settings("ruler", seed=seed, num_samples=4).requests(tokenizer) for seed in (1, 2)
    )
    assert all(a.references != b.references for a, b in zip(first, second, strict=True))
    assert len({request.references for request in first}) == len(first)


def test_the_question_of_a_sample_is_the_same_at_every_length(tokenizer):
    short, long = (settings("ruler", length=n).requests(tokenizer) for n in (1024, 2048))
    assert [r.question for r in short] == [r.question for r in long]


def request_of(*references):
    return TaskRequest(
        uid="0", task="vt", context="", question="", references=references, max_new_tokens=1
    )


@pytest.mark.parametrize(
    ("references", "answer", "score"),
    [
        (("1234567",), " 1234567.", 1.0),
        (("1234567",), " 123456", 0.0),
        (("1234567",), "", 0.0),
        (("AB", "CD", "EF", "GH", "IJ"), "ab, Cd and GH", 0.6),
        (("AB", "CD"), "AB\x00CD", 1.0),
        (("A\nB",), "A\tB", 1.0),
        (("AB",), "A\x0bB", 0.0),
        (("bad-Cafe",), "BAD-CAFE", 1.0),
    ],
)
def test_the_score_is_the_fraction_of_references_in_the_answer(references, answer, score):
    assert settings("ruler").score(request_of(*references), answer) == pytest.approx(score)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("length", 127, "at least 128"),
        ("length", True, "at least 128"),
        ("length", 4096.0, "at least 128"),
        ("length", "4096", "at least 128"),
        ("num_samples", 0, "at least 1"),
        ("num_samples", True, "at least 1"),
        ("max_new_tokens", 0, "at least 1"),
        ("max_new_tokens", False, "at least 1"),
        ("seed", -1, "at least 0"),
        ("seed", None, "at least 0"),
        ("tasks", [], "niah_multikey_1"),
        ("tasks", "vt", "niah_multikey_1"),
        ("tasks", ["vt", "vt"], "none twice"),
        ("tasks", ["cwe"], "niah_multikey_1"),
        ("tasks", [["vt"]], "niah_multikey_1"),
        ("haystack", "essay", "default, noise, prose"),
        ("haystack", None, "default, noise, prose"),
        ("values", "words", "numbers, uuids"),
        ("vt_names", 5, "random, pool"),
        ("vt_joiner", " ", "newline, space"),
        ("vt_example", 1, "true or false"),
        ("strip_prompt", "true", "true or false"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line_with_its_key_and_what_is_allowed(key, value, allowed):
    with pytest.raises(ValueError, match=re.escape(f"task.{key}=")) as info:
        settings("ruler", **{key: value})
    message = str(info.value)
    assert message.startswith(f"task.{key}={value!r}: must be ")
    assert allowed in message
    assert "\n" not in message


def test_hydra_can_override_every_setting():
    for config in ("ruler", "ruler_original"):
        keys = set(OmegaConf.load(ROOT / "conf" / "task" / f"{config}.yaml"))
        settable = {name for name in Ruler.__dataclass_fields__ if not name.startswith("_")}
        assert keys - {"_target_", "_convert_"} == settable
