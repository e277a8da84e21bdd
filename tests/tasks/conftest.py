"""The tokenizer of the bundled model, for the tests of all tasks."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return AutoTokenizer.from_pretrained(Path(__file__).parents[2] / "models" / "bundled")
