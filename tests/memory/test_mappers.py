"""What mappers place is exactly what was selected, against plain loops over tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memory_tiers.base import PageSelection, Rows, count_bits
from memory_tiers.partition.every_page import every_page
from memory_tiers.partition.identity import Identity
from memory_tiers.partition.token import Token
from sparse_algos.base import Selection

PAGES_PER_ROW = 12
SIZES = st.sampled_from([1, 3, 8, 16, 64])
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=4)
SEEDS = st.integers(0, 10_000)
examples = settings(max_examples=60)


def rows_of(lengths: list[int], window: int | None = None) -> Rows:
    """Rows whose pages lie in descending order of the row, so that none starts at 0 by chance."""
    tokens_R = torch.tensor(lengths)
    first_R = torch.arange(len(lengths), 0, -1) * PAGES_PER_ROW
    first_token_R = None if window is None else tokens_R - window
    return Rows(first_R, tokens_R, max(lengths), first_token_R)


def tokens_of(pages: PageSelection, rows: Rows, page_tokens: int) -> list[list[int]]:
    """Tokens that each row reads, by plain loops; asserts that pages are the row's own."""
    found = []
    for row, first_page in enumerate(rows.first_page_R.tolist()):
        tokens = []
        for at in range(int(pages.indptr_R1[row]), int(pages.indptr_R1[row + 1])):
            index, bits = int(pages.pages_N[at]) - first_page, int(pages.live_N[at])
            assert 0 <= index < PAGES_PER_ROW
            tokens += [index * page_tokens + s for s in range(page_tokens) if bits >> s & 1]
        found.append(tokens)
    return found


def some_dead(seed: int, page_tokens: int) -> Tensor:
    """Dead bits of random slots of every page."""
    generator = torch.Generator().manual_seed(seed)
    dead_PS = torch.rand(6 * PAGES_PER_ROW, page_tokens, generator=generator) < 0.3
    bit_S = torch.ones(page_tokens, dtype=torch.int64) << torch.arange(page_tokens)
    return (dead_PS * bit_S).sum(1)


def is_dead(dead_P: Tensor | None, page: int, slot: int) -> bool:
    return dead_P is not None and bool(int(dead_P[page]) >> slot & 1)


def living(tokens: list[int], row: int, rows: Rows, size: int, dead_P: Tensor | None) -> list[int]:
    """The tokens of a row that were not evicted."""
    first_page = int(rows.first_page_R[row])
    return [t for t in tokens if not is_dead(dead_P, first_page + t // size, t % size)]


@examples
@given(LENGTHS, SIZES, SEEDS, st.one_of(st.none(), st.integers(1, 20)), st.booleans())
def test_every_page_is_every_token_in_sight(lengths, size, seed, window, has_dead):
    lengths = [length * size - seed % size for length in lengths]
    rows = rows_of(lengths, window)
    dead_P = some_dead(seed, size) if has_dead else None
    pages = every_page(rows, size, dead_P)
    expected = [
        living(list(range(max(0, n - (window or n)), n)), row, rows, size, dead_P)
        for row, n in enumerate(lengths)
    ]
    assert tokens_of(pages, rows, size) == expected
    assert pages.wanted == sum(map(len, expected)) == count_bits(pages.live_N, size)
    assert (pages.live_N != 0).all(), "a page without a token was read"


@examples
@given(LENGTHS, SIZES, SEEDS, st.booleans())
def test_identity_reads_the_blocks_that_were_selected(lengths, size, seed, has_dead):
    lengths = [length * size - seed % size for length in lengths]
    rows = rows_of(lengths)
    chosen_RP = torch.rand(len(lengths), 12, generator=torch.Generator().manual_seed(seed)) < 0.4
    chosen_RP &= torch.arange(12) * size < rows.num_tokens_R.unsqueeze(1)
    dead_P = some_dead(seed, size) if has_dead else None
    pages = Identity().to_pages(as_selection(chosen_RP), rows, size, dead_P)
    expected = []
    for row, length in enumerate(lengths):
        blocks = chosen_RP[row].nonzero().squeeze(1).tolist()
        tokens = [b * size + s for b in blocks for s in range(size) if b * size + s < length]
        expected.append(living(tokens, row, rows, size, dead_P))
    assert tokens_of(pages, rows, size) == expected


@examples
@given(LENGTHS, SIZES, SEEDS, st.booleans())
def test_token_reads_the_tokens_that_were_selected_and_each_page_once(
    lengths, size, seed, has_dead
):
    lengths = [length * size - seed % size for length in lengths]
    rows = rows_of(lengths)
    generator = torch.Generator().manual_seed(seed)
    chosen_RT = torch.rand(len(lengths), 12 * size, generator=generator) < 0.3
    chosen_RT &= torch.arange(12 * size) < rows.num_tokens_R.unsqueeze(1)
    dead_P = some_dead(seed, size) if has_dead else None
    pages = Token().to_pages(as_selection(chosen_RT), rows, size, dead_P)
    chosen = [chosen_RT[row].nonzero().squeeze(1).tolist() for row in range(len(lengths))]
    expected = [living(one, row, rows, size, dead_P) for row, one in enumerate(chosen)]
    assert tokens_of(pages, rows, size) == expected
    assert pages.pages_N.unique().numel() == pages.pages_N.numel()
    assert pages.wanted == sum(map(len, chosen))


def as_selection(chosen_RP: Tensor) -> Selection:
    """Columns in ascending order, those that do not count at the end."""
    columns = chosen_RP.shape[1]
    partitions_RP = torch.arange(columns).masked_fill(~chosen_RP, columns).sort(dim=1).values
    return Selection(partitions_RP, partitions_RP < columns)


@pytest.mark.parametrize(
    ("mapper", "kind", "partition_size", "page_tokens", "word"),
    [
        (Identity(), "token", 1, 16, "selects tokens"),
        (Identity(), "block", 32, 16, "partition.page_tokens=16"),
        (Token(), "block", 16, 16, "selects blocks"),
    ],
)
def test_what_cannot_be_placed_is_refused_with_its_reason(
    mapper, kind, partition_size, page_tokens, word
):
    assert word in mapper.refusal(kind, partition_size, page_tokens)


def test_what_can_be_placed_is_not_refused():
    assert Identity().refusal("block", 16, 16) is None
    assert Token().refusal("token", 1, 64) is None
