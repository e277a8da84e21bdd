"""Prompts are built once: here or in processes, kept or not, they are the same."""

import time
from dataclasses import replace

import pytest

from harness.tasks import prompt_cache
from harness.tasks.ruler13 import TASKS, Ruler13
from tests.tasks.byte_tokenizer import ByteTokenizer
from tests.tasks.ruler13_settings import settings13


@pytest.fixture
def never_built(monkeypatch):
    def generator(self, task):
        raise AssertionError(task)

    return lambda: monkeypatch.setattr(Ruler13, "generator", generator)


def test_processes_build_what_one_builds(tokenizer):
    ruler = settings13(num_samples=12, length=4096)
    assert replace(ruler, workers=2).requests(tokenizer) == ruler.requests(tokenizer)


def test_what_is_kept_is_read_again_and_not_built(tokenizer, tmp_path, never_built):
    ruler = settings13(cache=str(tmp_path))
    built = ruler.requests(tokenizer)
    assert len(list(tmp_path.iterdir())) == len(TASKS)
    never_built()
    started_s = time.perf_counter()
    assert ruler.requests(tokenizer) == built
    assert time.perf_counter() - started_s < 2
    assert replace(ruler, tasks=["fwe", "vt"]).requests(tokenizer) == tuple(
        one for task in ("fwe", "vt") for one in built if one.task == task
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 43},
        {"length": 4097},
        {"num_samples": 3},
        {"max_new_tokens": 7},
        {"essays": "hub"},
        {"sentences": "rule"},
    ],
)
def test_another_setting_is_another_file(tokenizer, tmp_path, changes):
    ruler = settings13(cache=str(tmp_path), tasks=["niah_single_2"])
    ruler.requests(tokenizer)
    identity = prompt_cache.tokenizer_sha256(tokenizer)
    assert prompt_cache.path_of(ruler, "niah_single_2", identity).is_file()
    changed = replace(ruler, **changes)
    assert not prompt_cache.path_of(changed, "niah_single_2", identity).is_file()
    assert not prompt_cache.path_of(ruler, "niah_single_2", "another tokenizer").is_file()


def test_other_code_is_another_file(monkeypatch):
    ruler = settings13(cache="kept")
    path = prompt_cache.path_of(ruler, "vt", "t")
    monkeypatch.setattr(prompt_cache, "tasks_sha256", lambda: "other")
    assert prompt_cache.path_of(ruler, "vt", "t") != path


def test_other_content_at_the_same_path_is_another_file(tokenizer, tmp_path):
    essays = tmp_path / "essays.txt"
    ruler = settings13(cache=str(tmp_path / "kept"), essays=str(essays), sentences="rule")
    paths = []
    for text in ("One. Two.", "One. Three."):
        essays.write_text(text)
        paths.append(prompt_cache.path_of(ruler, "niah_single_2", "t"))
    assert paths[0] != paths[1]


@pytest.mark.parametrize("left", [0, 10, -1])
def test_a_file_that_is_not_whole_is_built_anew(tokenizer, tmp_path, left):
    ruler = settings13(cache=str(tmp_path), tasks=["vt"])
    built = ruler.requests(tokenizer)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:left] if left >= 0 else whole[: whole.index(b"\n") + 1])
    assert ruler.requests(tokenizer) == built
    assert path.read_bytes() == whole


def test_a_tokenizer_that_cannot_be_told_from_another_keeps_nothing(tmp_path):
    ruler = settings13(cache=str(tmp_path), tasks=["vt"])
    assert len(ruler.requests(ByteTokenizer())) == 2
    assert list(tmp_path.iterdir()) == []
