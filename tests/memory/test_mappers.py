"""What mappers place is exactly what was selected, against plain loops over tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.build import build_algorithm, build_mapper
from memory_tiers.base import Layout, PageSelection, Rows, SlotRanges, count_bits
from memory_tiers.partition.every_page import every_page
from memory_tiers.partition.grouped import Grouped
from memory_tiers.partition.identity import Identity
from memory_tiers.partition.slot_ranges import pages_of
from memory_tiers.partition.split import Split
from memory_tiers.partition.token import Token
from sparse_algos.selection import Selection
from tests.laws.configs import settings_of

PAGES_PER_ROW = 12
# Mappers with sizes that they serve: partition, page.
UNIFORM = [
    *((Identity(), size, size) for size in (1, 3, 8, 16, 64)),
    *((Split(), size, page) for size, page in ((2, 1), (9, 3), (32, 16), (128, 64))),
    *((Grouped(), size, page) for size, page in ((1, 3), (3, 9), (8, 16), (8, 64))),
    *((Token(), 1, page) for page in (1, 3, 8, 16, 64)),
]
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
@given(st.sampled_from(UNIFORM), LENGTHS, SEEDS, st.booleans())
def test_what_was_selected_is_read_and_nothing_else(case, lengths, seed, has_dead):
    mapper, size, page = case
    lengths = [length * page - seed % page for length in lengths]
    rows, last = rows_of(lengths), -(-PAGES_PER_ROW * page // size)
    chosen_RP = torch.rand(len(lengths), last, generator=torch.Generator().manual_seed(seed)) < 0.4
    chosen_RP &= torch.arange(last) * size < rows.num_tokens_R.unsqueeze(1)
    dead_P = some_dead(seed, page) if has_dead else None
    layout = Layout(page_tokens=page, partition_size=size, dead_P=dead_P)
    pages = mapper.to_pages(as_selection(chosen_RP), rows, layout)
    chosen = [
        [p * size + s for p in chosen_P.nonzero().squeeze(1).tolist() for s in range(size)]
        for chosen_P in chosen_RP
    ]
    stored = [[t for t in one if t < n] for one, n in zip(chosen, lengths, strict=True)]
    expected = [living(one, row, rows, page, dead_P) for row, one in enumerate(stored)]
    assert tokens_of(pages, rows, page) == expected
    assert pages.wanted == sum(map(len, stored))
    assert pages.pages_N.unique().numel() == pages.pages_N.numel(), "a page was named twice"
    if size != page:
        assert (pages.live_N != 0).all(), "a page without a token was read"


@examples
@given(LENGTHS, SIZES, SEEDS, st.booleans())
def test_ranges_of_any_length_are_read_and_nothing_else(lengths, page, seed, has_dead):
    rows = rows_of([PAGES_PER_ROW * page] * len(lengths))
    ranges = random_ranges(len(lengths), PAGES_PER_ROW * page, seed)
    dead_P = some_dead(seed, page) if has_dead else None
    layout = Layout(page_tokens=page, partition_size=1, dead_P=dead_P, ranges=ranges)
    pages = pages_of(ranges, rows, layout)
    wanted = [
        [
            slot
            for first, count in zip(firsts, counts, strict=True)
            for slot in range(first, first + count)
        ]
        for firsts, counts in zip(ranges.first_RC.tolist(), ranges.count_RC.tolist(), strict=True)
    ]
    expected = [living(one, row, rows, page, dead_P) for row, one in enumerate(wanted)]
    assert tokens_of(pages, rows, page) == expected
    assert pages.wanted == sum(map(len, wanted))
    assert pages.pages_N.unique().numel() == pages.pages_N.numel(), "a page was named twice"
    assert (pages.live_N != 0).all(), "a page without a token was read"


def test_query_rows_of_one_sequence_that_read_the_same_page_stay_apart():
    rows = Rows(torch.tensor([24, 24]), torch.tensor([3, 4]), 4)
    selection = Selection(torch.tensor([[0, 2], [1, 3]]), None)
    pages = Token().to_pages(selection, rows, Layout(page_tokens=16, partition_size=1))
    assert pages.pages_N.tolist() == [24, 24]
    assert pages.live_N.tolist() == [0b101, 0b1010]
    assert pages.indptr_R1.tolist() == [0, 1, 2]


def random_ranges(num_rows: int, num_slots: int, seed: int) -> SlotRanges:
    """Disjoint, ascending, some of them adjacent, some empty and with a start of their own."""
    generator = torch.Generator().manual_seed(seed)
    ends_RE = torch.randint(0, num_slots + 1, (num_rows, 13), generator=generator).sort(1).values
    first_RC, count_RC = ends_RE[:, :-1].clone(), ends_RE.diff(dim=1)
    skipped_RC = torch.rand(first_RC.shape, generator=generator) < 0.3
    count_RC[skipped_RC] = 0
    first_RC[count_RC == 0] = num_slots + 7
    return SlotRanges(first_RC, count_RC)


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
        (Split(), "token", 1, 16, "selects tokens"),
        (Split(), "block", 24, 16, "partition.page_tokens=16"),
        (Split(), "block", 8, 16, "several whole pages"),
        (Split(), "block", 16, 16, "several whole pages"),
        (Grouped(), "token", 1, 16, "selects tokens"),
        (Grouped(), "block", 12, 16, "partition.page_tokens=16"),
        (Grouped(), "block", 32, 16, "several fill a page"),
        (Grouped(), "block", 16, 16, "several fill a page"),
    ],
)
def test_what_cannot_be_placed_is_refused_with_its_reason(
    mapper, kind, partition_size, page_tokens, word
):
    assert word in mapper.refusal(kind, partition_size, page_tokens)


@pytest.mark.parametrize(
    ("algo", "page_tokens", "mapper"),
    [
        ("quest", 16, Identity),
        ("quest", 8, Split),
        ("quest", 64, Grouped),
        ("oracle_topk", 16, Token),
    ],
)
def test_auto_takes_the_mapper_that_serves(algo, page_tokens, mapper):
    options = settings_of(algo, "auto", page_tokens=page_tokens)
    assert type(build_mapper(options, build_algorithm(options))) is mapper


@pytest.mark.parametrize("mapper", [Identity(), Split(), Grouped(), Token()])
@pytest.mark.parametrize("partition_size", [1, 8, 16, 32])
@pytest.mark.parametrize("page_tokens", [8, 16])
def test_one_mapper_at_most_serves_blocks_of_a_size(mapper, partition_size, page_tokens):
    kinds = {"block", "token"} if partition_size == 1 else {"block"}
    served = {kind for kind in kinds if not mapper.refusal(kind, partition_size, page_tokens)}
    assert served <= mapper.serves
    by_size = {
        Identity: partition_size == page_tokens,
        Split: partition_size > page_tokens,
        Grouped: partition_size < page_tokens,
        Token: False,
    }
    assert ("block" in served) == by_size[type(mapper)]
