"""RULER's 13 tasks built from conf/task, with texts of ours, for the tests of them."""

from omegaconf import OmegaConf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from harness.tasks.ruler13 import Ruler13
from harness.tasks.words import all_words
from tests.tasks.ruler_settings import ROOT

OFFLINE = {"essays": "offline", "squad": "offline", "hotpotqa": "offline"}


def settings13(**changes):
    """conf/task/ruler13.yaml, offline and built here unless told otherwise."""
    values = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "task" / "ruler13.yaml"))
    assert values.pop("_target_") == "harness.tasks.ruler13.Ruler13"
    assert values.pop("_convert_") == "all"
    changes = {**OFFLINE, "num_samples": 2, "workers": 1, "cache": None, **changes}
    assert set(changes) <= set(values)
    return Ruler13(**(values | changes))


def trained_tokenizer():
    """A byte-level BPE of another vocabulary, trained on RULER's words and the bundled prose."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet, show_progress=False)
    prose = (ROOT / "harness/tasks/data/prose.txt").read_text()
    plain.train_from_iterator([prose, *(f" {word}" for word in all_words())], trainer)
    return Wrapped(plain)


class Wrapped:
    """As transformers wraps a tokenizer."""

    def __init__(self, backend):
        self.backend_tokenizer = backend

    def encode(self, text):
        return self.backend_tokenizer.encode(text).ids
