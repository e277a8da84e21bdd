"""Tokens of RULER's prompts from their pieces, and what the draws behind them are."""

from itertools import islice
from random import Random

import pytest

from harness.tasks.drawing import Distinct, permuted, shuffled_order
from harness.tasks.ruler13 import CHECKED, TASKS
from harness.tasks.token_counts import RunningSum, TokenCounts
from tests.tasks.byte_tokenizer import ByteTokenizer
from tests.tasks.ruler13_settings import settings13, trained_tokenizer
from tests.tasks.ruler_settings import prompt


@pytest.fixture(scope="module", params=["bundled", "trained", "bytes"])
def counted_by(request, tokenizer):
    """A tokenizer; all of these cut texts where pieces end."""
    made = {"bundled": lambda: tokenizer, "trained": trained_tokenizer, "bytes": ByteTokenizer}
    return made[request.param]()


@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_of_any_size_has_the_tokens_of_its_pieces(counted_by, task):
    ruler, counts = settings13(length=4096), TokenCounts(counted_by)
    generator = ruler.generator(task)
    sizes_seen, largest = set(), 100 if task.startswith("qa") else 1000
    for index in range(6):
        draft = generator.draft(f"7:{task}:{index}", lambda other: other.counter(counts))
        num_tokens = draft.counter(counts)
        least, most = draft.smallest_size, draft.haystack.largest_size() or largest
        rng = Random(index)
        # Not in order: a count does not depend on those before it.
        for size in (least, *(rng.randint(least, min(most, largest)) for _ in range(3)), least + 1):
            assert num_tokens(size) == len(counted_by.encode(draft.prompt(size)))
            sizes_seen.add(size)
    assert len(sizes_seen) > 12


@pytest.mark.parametrize("index", [0, 20])
def test_a_tokenizer_that_joins_pieces_of_one_sample_is_found_out(tokenizer, index):
    ruler = settings13(tasks=["niah_single_1"], length=1024, num_samples=21)
    odd = ruler.requests(tokenizer)[index].references[0]
    used = _lengths(ruler, _More(tokenizer, lambda text: odd in text and text.count("\n") > 4))
    assert max(used) <= 1024


def test_a_tokenizer_that_joins_pieces_of_long_texts_alone_is_found_out(tokenizer):
    ruler = settings13(tasks=["niah_single_1"], length=2048, num_samples=41)
    assert ruler.num_samples < CHECKED
    assert max(_lengths(ruler, _More(tokenizer, lambda text: len(text) > 4000))) <= 2048


def test_running_sums_read_each_term_once():
    read = []

    def terms(start, stop):
        read.extend(range(start, stop))
        return range(start, stop)

    sums = RunningSum(terms)
    assert [sums.upto(size) for size in (0, 3, 1, 7, 7)] == [0, 3, 0, 21, 21]
    assert read == list(range(7))


@pytest.mark.parametrize("count", [1, 2, 3, 21, 64, 1000, 1024, 5000])
def test_draws_in_bulk_are_those_of_the_random_module(count):
    for seed in ("a", "b"):
        assert list(permuted(Random(seed), count)) == Random(seed).sample(range(count), count)
        shuffled = list(range(count))
        Random(42).shuffle(shuffled)
        assert shuffled_order(count, 42) == shuffled
        rng, num_drawn = Random(seed), min(count, 700)
        singly = dict.fromkeys(rng.randrange(count) for _ in range(20 * count))
        first = list(islice(singly, num_drawn))
        drawn = Distinct(Random(seed), count)
        assert drawn.part(0, len(first) // 2) == first[: len(first) // 2]
        assert drawn.part(len(first) // 3, len(first)) == first[len(first) // 3 :]


class _More:
    """A tokenizer with 60 tokens more for some texts."""

    def __init__(self, tokenizer, is_odd):
        self._tokenizer, self._is_odd = tokenizer, is_odd

    def encode(self, text):
        return self._tokenizer.encode(text) + [0] * 60 * self._is_odd(text)


def _lengths(ruler, tokenizer):
    made = ruler.requests(tokenizer)
    used = [len(tokenizer.encode(prompt(one))) + one.max_new_tokens for one in made]
    plain = [len(tokenizer._tokenizer.encode(prompt(one))) + one.max_new_tokens for one in made]
    assert used != plain, "no prompt is odd"
    return used
