"""What the model is trained on: tokens, samples, positions and the corpus."""

import hashlib
import json
import random
from pathlib import Path

import pytest

from models.training import recipe
from models.training.dialect import Dialect, NoiseKind
from models.training.positions import MAX_POSITION, draw_dilution, draw_positions
from models.training.sample import Language, Mark, Source
from models.training.tasks import TASKS, draw_sample
from models.training.text import read_corpus
from models.training.tokenizer import EOS, UNK

TEXT_TASKS = sorted(TASKS - {"copy"})


@pytest.mark.parametrize(
    "text",
    [
        "plain words, and some more.",
        'na\u00efve \u2014 \u65e5\u672c\u8a9e\n\tx  y  "z"{}\U0001f600',
        " 3f8a1c2e-11aa-4b5c-9d0e-aabbccddeeff 1234567",
        "\r\n \u200d\ufeff",
    ],
)
def test_any_text_comes_back_from_the_byte_tokenizer(text: str, ground: recipe.Ground) -> None:
    ids = list(ground.bytes.encode(text))
    assert ground.bytes.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert UNK not in ids


def test_the_word_tokenizer_knows_only_its_words(ground: recipe.Ground) -> None:
    known = " One of the special magic numbers for " + ground.words.pools.keys[0] + " is: 1234567."
    assert ground.words.tokenizer.decode(list(ground.words.encode(known))) == known
    assert UNK not in ground.words.encode(known)
    assert UNK in ground.words.encode(" unheard")


def test_old_ids_survive_the_change_of_tokenizer(
    ground: recipe.Ground, bundled_language: Language
) -> None:
    words = ground.words.tokenizer.get_vocab()
    for grown in (ground.bytes.tokenizer.get_vocab(), bundled_language.tokenizer.get_vocab()):
        assert len(grown) > len(words)
        assert all(grown[piece] == index for piece, index in words.items())
    for word in ground.words.pools.keys + ground.words.pools.variables:
        expected = ground.words.encode(" " + word)
        assert len(expected) == 1
        assert ground.bytes.encode(" " + word) == bundled_language.encode(" " + word) == expected


@pytest.mark.parametrize("num_tokens", [128, 320])
@pytest.mark.parametrize("task", TEXT_TASKS)
def test_ids_of_a_sample_are_the_tokens_of_its_text(
    task: str, num_tokens: int, bundled_language: Language
) -> None:
    noises: dict[NoiseKind, float] = {kind: 1.0 for kind in NoiseKind if kind != NoiseKind.JUMBLE}
    source = Source(bundled_language, Dialect(noises=noises))
    tokenizer = bundled_language.tokenizer
    for seed in range(20):
        ids = draw_sample(source, task, num_tokens, random.Random(seed)).ids
        text = tokenizer.decode(ids)
        assert tokenizer.encode(text).ids == [token for token in ids if token != EOS]


@pytest.mark.parametrize("task", TEXT_TASKS)
def test_every_answer_stands_in_the_context(task: str, bundled_language: Language) -> None:
    source = Source(bundled_language, Dialect())
    for seed in range(10):
        sample = draw_sample(source, task, 256, random.Random(seed))
        context: set[int] = set()
        num_answers = 0
        for segment in sample.segments:
            if segment.num_answer:
                answer = set(segment.ids[-segment.num_answer :])
                assert (
                    len(answer - context - {EOS} - set(bundled_language.encode_all(",", "."))) == 0
                )
                num_answers += 1
            context |= set(segment.ids)
        assert num_answers > 0


# Digests of ids and answer masks that the code which trained the bundled weights drew.
GOLDEN = {
    "copy": "5d835bd834e86162",
    "multikey": "cb004b6bc1549569",
    "multiquery": "883031f925832e72",
    "multivalue": "6618fe1870f514b6",
    "needlehay": "05fabbc98dcea09a",
    "repeat": "94dfdeb922da67f7",
    "vt": "e8260e78e882111a",
}


@pytest.mark.parametrize("task", sorted(GOLDEN))
def test_generators_draw_what_the_bundled_model_was_trained_on(
    task: str, bundled_language: Language
) -> None:
    assert _digest_of_samples(task, bundled_language) == GOLDEN[task]


def _digest_of_samples(task: str, language: Language) -> str:
    digest = hashlib.sha256()
    for seed in range(5):
        sample = draw_sample(Source(language, Dialect()), task, 288, random.Random(seed))
        digest.update(json.dumps([sample.ids, sample.is_answer]).encode())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("task", sorted(TASKS))
def test_positions_increase_and_jump_only_between_segments(
    task: str, bundled_language: Language
) -> None:
    num_jumps = 0
    for seed in range(20):
        rng = random.Random(seed)
        sample = draw_sample(Source(bundled_language, Dialect()), task, 192, rng)
        positions = draw_positions(sample, 0.15, rng)
        assert positions[0] == 0
        assert positions[-1] < MAX_POSITION
        start = 0
        for segment in sample.segments:
            first = positions[start]
            end = start + len(segment.ids)
            assert positions[start:end] == list(range(first, first + len(segment.ids)))
            assert start == 0 or first > positions[start - 1]
            num_jumps += start > 0 and first > positions[start - 1] + 1
            start = end
    assert num_jumps > 20


def test_dilution_never_touches_what_is_asked_for(bundled_language: Language) -> None:
    diluted: set[Mark] = set()
    for seed in range(30):
        rng = random.Random(seed)
        sample = draw_sample(Source(bundled_language, Dialect()), "multikey", 320, rng)
        bias = draw_dilution(sample, span=4096, rng=rng)
        assert min(bias) >= 0
        diluted |= {mark for mark, amount in zip(sample.marks, bias, strict=True) if amount > 0}
    assert diluted == {Mark.NOISE, Mark.DISTRACTOR}


def test_html_and_plain_text_give_the_same_corpus(tmp_path: Path) -> None:
    first, second = "All night the gate was open.", "Then the gate was shut by day."
    plain = tmp_path / "plain.txt"
    plain.write_text(f"{first}\n{second}\n")
    page = tmp_path / "page.html"
    page.write_text(f"<main><p>{first} <b>{second}</b></p><pre>{second}</pre></main>")
    corpus = read_corpus([plain])
    assert corpus.sentences == (first, second)
    assert corpus.words == ("gate", "the", "was")
    assert read_corpus([page]) == corpus


def test_a_missing_corpus_is_named() -> None:
    with pytest.raises(ValueError, match=r"nowhere\.txt"):
        read_corpus([Path("nowhere.txt")])
