"""Where pages are: every table against a plain dict, and what tables cost."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_tiers.base import NOWHERE
from memory_tiers.native import UnavailableError
from memory_tiers.tables.flat import Flat
from memory_tiers.tables.segments import GROUP
from memory_tiers.tables.slabs import Slabs, popcount
from memory_tiers.tables.slabs_cpp import CompiledSlabs
from memory_tiers.tables.two_level import TwoLevel
from tests.memory.real_bytes import real_bytes

CPU = torch.device("cpu")
NUM_PAGES = 5 * GROUP + 17
ALL = torch.arange(NUM_PAGES)
TABLES = {"flat": Flat, "torch": Slabs, "compiled": CompiledSlabs}
examples = settings(max_examples=40)
# What a batch is, and what it is drawn with.
operations = st.lists(
    st.tuples(st.sampled_from(("scatter", "run", "remove", "thin", "clear")), st.integers(0, 999)),
    max_size=25,
)


def made(name, num_pages=NUM_PAGES):
    try:
        return TABLES[name](num_pages, CPU)
    except UnavailableError as error:
        pytest.skip(str(error))


def placed_by(kind: str, absent: list[int], draw: random.Random) -> list[int]:
    """Pages that an operation places, out of those that are not here."""
    if kind == "scatter":
        return draw.sample(absent, min(len(absent), draw.randint(1, 40)))
    if kind == "run":
        start = draw.randrange(len(absent) + 1)
        return absent[start : start + draw.randint(1, 100)]
    return []


def removed_by(kind: str, present: list[int], draw: random.Random) -> list[int]:
    """Pages that an operation removes, out of those that are here."""
    if kind == "remove":
        return draw.sample(present, min(len(present), draw.randint(1, 40)))
    if kind == "thin":
        return present[:: draw.randint(1, 5)]
    return present if kind == "clear" else []


def play(table, actions, check=lambda table, plain: None) -> dict[int, int]:
    """Do random batches to a table and to a dict, which is returned."""
    plain: dict[int, int] = {}
    for kind, seed in actions:
        draw = random.Random(seed)
        added = placed_by(kind, [page for page in range(NUM_PAGES) if page not in plain], draw)
        fresh = {page: draw.randrange(2**31) for page in added}
        table.place(torch.tensor(added, dtype=torch.int64), torch.tensor(list(fresh.values())))
        plain |= fresh
        gone = removed_by(kind, sorted(plain), draw)
        draw.shuffle(gone)
        table.remove(torch.tensor(gone, dtype=torch.int64))
        plain = {page: frame for page, frame in plain.items() if page not in gone}
        check(table, plain)
    return plain


def check_frames(table, plain) -> None:
    expected = torch.tensor([plain.get(page, NOWHERE) for page in range(NUM_PAGES)])
    assert torch.equal(table.frames(ALL), expected)


def check_layout(table, plain) -> None:
    """The view says the same, and slabs neither overlap nor leave the cells."""
    cells_C, base_G, bits_G = table.view()
    capacities, taken = [], torch.zeros(len(cells_C), dtype=torch.int64)
    for group, bits in enumerate(bits_G.tolist()):
        here = [page for page in range(group * GROUP, (group + 1) * GROUP) if page in plain]
        assert bits % 2**64 == sum(1 << page % GROUP for page in here)
        base = int(base_G[group])
        assert cells_C[base : base + len(here)].tolist() == [plain[page] for page in here]
        capacity = 1 << (len(here) - 1).bit_length() if here else 0
        taken[base : base + capacity] += 1
        capacities.append(capacity)
    assert taken.max() <= 1
    assert taken.sum() == sum(capacities)
    assert table.num_bytes()["segments"] == 4 * sum(capacities)


CONSTANTS = ("_slot_E", "_class_of_E1")


@pytest.mark.parametrize("name", TABLES)
@examples
@given(actions=operations)
def test_a_table_is_a_dict(name, actions):
    play(made(name), actions, check_frames)


@pytest.mark.parametrize("name", ["torch", "compiled"])
@examples
@given(actions=operations)
def test_no_two_groups_share_a_cell(name, actions):
    play(made(name), actions, check_layout)


@examples
@given(actions=operations)
def test_compiled_and_torch_agree(actions):
    first, second = made("compiled"), made("torch")
    play(first, actions)
    play(second, actions)
    assert torch.equal(first.frames(ALL), second.frames(ALL))
    assert torch.equal(first.view().bits_G, second.view().bits_G)
    for part in ("directory", "segments"):
        assert first.num_bytes()[part] == second.num_bytes()[part]


@pytest.mark.parametrize("name", TABLES)
@examples
@given(actions=operations)
def test_bytes_are_those_of_the_tensors(name, actions):
    table = made(name)
    play(table, actions)
    parts = table.num_bytes()
    assert sum(parts.values()) == real_bytes(table, *CONSTANTS)
    assert all(type(size) is int and size >= 0 for size in parts.values())


@pytest.mark.parametrize("name", ["torch", "compiled"])
@examples
@given(actions=operations)
def test_an_emptied_table_costs_what_it_did_at_the_start(name, actions):
    table = made(name)
    start = table.num_bytes()
    play(table, [*actions, ("clear", 0)])
    assert table.num_bytes()["segments"] == start["segments"] == 0


@pytest.mark.parametrize("name", ["torch", "compiled"])
@pytest.mark.parametrize("step", [1, 3, GROUP + 1])
def test_freed_slabs_are_reused(name, step):
    table, pages_N = made(name, 70 * GROUP), torch.arange(0, 64 * GROUP, step)
    table.place(pages_N, pages_N)
    table.remove(pages_N)
    cells = len(table.view().cells_C)
    for shift in range(GROUP, 6 * GROUP, GROUP):
        table.place(pages_N + shift, pages_N)
        table.remove(pages_N + shift)
    assert len(table.view().cells_C) == cells


# Pages placed, removed and placed once more, each a group and the slots in it, and cells dealt.
REUSED = {
    "emptied": ((0, 0, 32), (0, 0, 32), (1, 0, 32), 32),
    "halved": ((0, 0, 64), (0, 20, 52), (1, 0, 32), 64),
    "halved twice": ((0, 0, 64), (0, 10, 58), (1, 0, 16), 64),
}


@pytest.mark.parametrize("name", ["torch", "compiled"])
@pytest.mark.parametrize("case", REUSED)
def test_cells_that_are_given_up_are_dealt_before_new_ones(name, case):
    table, (*steps, dealt) = made(name), REUSED[case]
    placed, removed, again = (
        group * GROUP + torch.arange(first, stop) for group, first, stop in steps
    )
    table.place(placed, placed)
    table.remove(removed)
    table.place(again, again)
    assert table._num_dealt == dealt


@pytest.mark.parametrize("name", ["torch", "compiled"])
def test_a_slab_that_a_group_grew_out_of_is_dealt_again(name):
    table = made(name)
    for page in (0, 1, GROUP):
        table.place(torch.tensor([page]), torch.tensor([page]))
    assert table._num_dealt == 1 + 2


@pytest.mark.parametrize("name", ["torch", "compiled"])
def test_the_pool_stays_close_to_what_is_used_while_every_group_grows(name):
    num_groups = 256
    table, first_G = made(name, num_groups * GROUP), torch.arange(num_groups) * GROUP
    for slot in range(GROUP):
        table.place(first_G + slot, first_G + slot)
        parts = table.num_bytes()
        assert parts["reserved"] <= parts["segments"] + 4 * num_groups
    assert torch.equal(
        table.frames(torch.arange(num_groups * GROUP)), torch.arange(num_groups * GROUP)
    )


def test_a_look_up_keeps_the_shape_of_the_pages():
    for name in TABLES:
        table = made(name)
        table.place(torch.tensor([3, 200]), torch.tensor([7, 8]))
        assert table.frames(torch.tensor([[3, 4], [200, 0]])).tolist() == [[7, -1], [8, -1]]
        assert table.frames(ALL[:0]).tolist() == []
        assert table.frames(ALL[::2])[100] == 8


@pytest.mark.parametrize(
    ("act", "pages"),
    [("place", [70, 5]), ("place", [9, 9]), ("place", [NUM_PAGES + 64]), ("remove", [6]),
     ("remove", [5, 5]), ("remove", [-1])],
)  # fmt: skip
def test_the_compiled_table_asserts_its_contract(act, pages):
    table = made("compiled")
    table.place(torch.tensor([5]), torch.tensor([50]))
    arguments = [torch.tensor(pages)] * (2 if act == "place" else 1)
    with pytest.raises(AssertionError, match=r"page -?[0-9]+ is "):
        getattr(table, act)(*arguments)


def test_a_look_up_outside_the_directory_is_an_assertion():
    with pytest.raises(AssertionError, match="2 pages lie outside"):
        made("compiled").frames(torch.tensor([-1, 0, 10**9]))


@pytest.mark.parametrize("compiled", [False, True])
@examples
@given(actions=operations)
def test_the_two_level_table_is_the_slabs_that_it_chose(compiled, actions):
    table = TwoLevel(NUM_PAGES, CPU, compiled=compiled)
    assert table.kernel == "torch" or compiled
    play(table, actions, check_frames)
    assert set(table.num_bytes()) == {"directory", "segments", "reserved"}


def test_without_a_compiler_the_two_level_table_is_torch(monkeypatch):
    def refuse(*_):
        raise UnavailableError("no compiler")

    monkeypatch.setattr("memory_tiers.tables.slabs_cpp.load_library", refuse)
    assert TwoLevel(NUM_PAGES, CPU).kernel == "torch"


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_popcount_counts_bits(numbers):
    expected = [(number % 2**64).bit_count() for number in numbers]
    assert popcount(torch.tensor(numbers)).tolist() == expected
