"""What the tests of the training code share: languages, a tiny schedule, an untrained model."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer
from torch import Generator

from models.training import recipe
from models.training.init import random_init, structured_init, token_classes
from models.training.sample import Language
from models.training.schedule import DEFAULT_SCHEDULE, ScheduledStage, read_schedule
from models.training.tokenizer import byte_tokenizer, capitals_tokenizer, word_tokenizer
from models.training.twin import Twin, TwinConfig
from models.training.wordpools import word_pools
from tests.models.fixed import BUNDLED, CORPUS

# The first step of a stage has rate zero, so every stage needs a second one.
TINY = 3e-4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def ground() -> recipe.Ground:
    pools = word_pools()
    words = word_tokenizer(pools)
    pieces = byte_tokenizer(words.get_vocab(), CORPUS, num_merges=100, num_pairs=500)
    return recipe.Ground(
        words=Language(words, pools, CORPUS),
        bytes=Language(pieces, pools, CORPUS),
        capitals=Language(capitals_tokenizer(pieces, pools), pools, CORPUS),
        seed=0,
    )


@pytest.fixture(scope="session")
def schedule() -> list[ScheduledStage]:
    stages = read_schedule(DEFAULT_SCHEDULE, TINY)
    return [
        replace(item, stage=replace(item.stage, batch_tokens=256, num_probe_samples=1))
        for item in stages
    ]


@pytest.fixture(scope="session")
def start(ground: recipe.Ground) -> Twin:
    """A structured model of the first stage."""
    model = Twin(TwinConfig(vocab_size=ground.words.num_tokens))
    generator = Generator().manual_seed(1)
    random_init(model, generator)
    structured_init(model, token_classes(ground.words.tokenizer, ground.words.pools), generator)
    return model


@pytest.fixture(scope="session")
def bundled_language() -> Language:
    tokenizer = Tokenizer.from_file(str(BUNDLED / "tokenizer.json"))
    return Language(tokenizer, word_pools(), CORPUS)
