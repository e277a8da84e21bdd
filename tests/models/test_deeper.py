"""The deeper model: what growing keeps, capitals in pairs, and RULER's own layout."""

import random
from pathlib import Path
from statistics import fmean

import pytest
import torch
from torch import Generator
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.tasks.ruler13 import Ruler13
from models.training import recipe
from models.training.deepen import ORDER, deepen
from models.training.dialect import Dialect, NameKind, NoiseKind
from models.training.export import check, read_folder
from models.training.library_text import main as write_library
from models.training.sample import Language, Source
from models.training.tasks import draw_sample
from models.training.text import read_corpus
from models.training.tokenizer import EOS, UNK, capitals_tokenizer
from models.training.wordpools import word_pools
from tests.models.fixed import BUNDLED

DEEPER = BUNDLED.parent / "deeper"


class _Plain:
    """A tokenizer as tasks see it."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def encode(self, text: str) -> list[int]:
        return list(self.language.encode(text))


def test_a_deeper_model_says_what_the_old_one_said() -> None:
    """The text holds no capitals, which are spelled anew; what is new writes next to nothing."""
    old, before = read_folder(BUNDLED)
    after = capitals_tokenizer(before, word_pools())
    model = deepen(old, before, after, Generator().manual_seed(0))
    text = " the harbour town wakes before the sun does and the gulls go out at once"
    old_T, new_T = (torch.tensor(tokenizer.encode(text).ids) for tokenizer in (before, after))
    positions_BT = torch.arange(len(old_T))[None]
    with torch.no_grad():
        old_BTV = old.logits(old(old_T[None], positions_BT))
        new_BTV = model.logits(model(new_T[None], positions_BT))
    shared = [index for piece, index in before.get_vocab().items() if piece in after.get_vocab()]
    assert torch.allclose(old_BTV[..., shared], new_BTV[..., shared], atol=0.05 * old_BTV.std())
    assert model.config.num_layers == len(ORDER)


@pytest.mark.parametrize(
    ("text", "num_tokens"), [(" ABCDE", 3), (" XIG", 2), (" VAR", 1), ("VAR", 1), (" QWERTZ", 3)]
)
def test_names_of_capitals_are_pairs(text: str, num_tokens: int, ground: recipe.Ground) -> None:
    ids = ground.capitals.encode(text)
    assert (len(ids), ground.capitals.tokenizer.decode(list(ids))) == (num_tokens, text)
    assert UNK not in ids


def test_pairs_of_capitals_move_no_other_id(ground: recipe.Ground) -> None:
    old, new = ground.bytes.tokenizer.get_vocab(), ground.capitals.tokenizer.get_vocab()
    gone = {piece for piece in old if piece not in new}
    assert {piece[1:] for piece in gone} <= set(ground.words.pools.variables)
    assert all(new[piece] == index for piece, index in old.items() if piece in new)
    assert sorted(new.values()) == list(range(len(new)))


@pytest.mark.parametrize("task", ["multikey", "multiquery", "multivalue", "needlehay", "vt"])
def test_ids_of_a_sample_in_rulers_layout_are_the_tokens_of_its_text(
    task: str, ground: recipe.Ground
) -> None:
    noises: dict[NoiseKind, float] = {kind: 1.0 for kind in NoiseKind if kind != NoiseKind.JUMBLE}
    dialect = Dialect(
        names=NameKind.LETTERS,
        line_share=0.5,
        example_share=0.5,
        open_end_share=0.5,
        noises=noises,
    )
    tokenizer = ground.capitals.tokenizer
    for seed in range(20):
        sample = draw_sample(Source(ground.capitals, dialect), task, 512, random.Random(seed))
        ids = [token for token in sample.ids if token != EOS]
        assert tokenizer.encode(tokenizer.decode(ids)).ids == ids


def test_chains_are_worded_as_ruler_words_them(ground: recipe.Ground) -> None:
    """On lines of their own, behind a solved example, with a prompt that ends in a space."""
    always = Dialect(
        names=NameKind.LETTERS,
        noises={NoiseKind.CYCLE: 1.0},
        line_share=1.0,
        example_share=1.0,
        open_end_share=1.0,
    )
    tokenizer = ground.capitals.tokenizer
    ours = tokenizer.decode(
        draw_sample(Source(ground.capitals, always), "vt", 640, random.Random(3)).ids
    )
    rulers = Ruler13(
        tasks=["vt"], length=1024, max_new_tokens=None, num_samples=1, seed=0, essays="offline",
        sentences="rule", squad="offline", hotpotqa="offline", workers=1, cache=None,
    ).requests(_Plain(ground.capitals))[0]  # fmt: skip
    theirs = rulers.context + rulers.question
    for part in (
        "following text.\n\n",
        ".\nVAR ",
        " \nThe grass",
        "they are:  ",
        "\n\nMemorize",
    ):
        assert part in ours
        assert part in theirs
    assert theirs.endswith("they are: ")


def test_python_brings_a_corpus_along(tmp_path: Path) -> None:
    write_library(["--out", str(tmp_path / "library.txt")])
    corpus = read_corpus([tmp_path / "library.txt"])
    assert len(corpus.sentences) > 2000
    assert len(corpus.words) > 2000


def test_the_deeper_folder_passes_its_check() -> None:
    assert "Qwen3ForCausalLM with 6672384 parameters" in check(DEEPER)


@pytest.mark.parametrize("task", ["vt", "niah_multivalue", "niah_multiquery"])
def test_the_deeper_model_solves_what_the_bundled_one_cannot(task: str) -> None:
    """RULER's own wording, names of random capitals, four values or keys at once."""
    tokenizer = AutoTokenizer.from_pretrained(DEEPER, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(DEEPER, local_files_only=True, dtype=torch.float32)
    asked = Ruler13(
        tasks=[task], length=1024, max_new_tokens=None, num_samples=4, seed=11, essays="offline",
        sentences="rule", squad="offline", hotpotqa="offline", workers=1, cache=None,
    )  # fmt: skip
    scores = []
    for request in asked.requests(tokenizer):
        ids_BT = torch.tensor([tokenizer.encode(request.context + request.question)])
        out_BT = model.generate(ids_BT, max_new_tokens=request.max_new_tokens, do_sample=False)
        answer = tokenizer.decode(out_BT[0, ids_BT.shape[1] :], skip_special_tokens=True)
        scores.append(asked.score(request, answer))
    assert fmean(scores) >= 0.9, scores
