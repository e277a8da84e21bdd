"""The compiled pass that draws tokens chooses what the plain one does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backends.draws import compiled_draws, draws
from memory_tiers.summary_store import SEGMENT, Segments
from sparse_algos.retrieve.magicpig import MagicPig
from sparse_algos.selection import Selection, Visible

PLAIN = {"sinks": 3, "recents": 5, "rebuild_every": 4, "seed": 1}


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    if compiled_draws() is None:
        pytest.skip("no compiler")


def pig_of(budget: float, tables: int, bits: int) -> MagicPig:
    return MagicPig(budget_tokens=budget, tables=tables, bits=bits, **PLAIN)


def by_table(pool_NCL: Tensor) -> Tensor:
    """The same codes, as they lie in a store."""
    return pool_NCL.mT.contiguous().mT


def drawn_both_ways(
    pig: MagicPig, query_RGL: Tensor, segments: Segments, visible: Visible
) -> tuple[Selection, Selection]:
    """By one pass, and by counting first and selecting then."""
    hashed = int(visible.covered_R.max())
    codes_RPL = segments.pool_NCE[segments.directory_RW.clamp(min=0)].flatten(1, 2)[:, :hashed]
    scores_RGP = (codes_RPL.unsqueeze(1) == query_RGL.unsqueeze(2)).sum(3).float()
    absent_RP = (segments.directory_RW < 0).repeat_interleave(SEGMENT, 1)[:, :hashed]
    scores_RGP = scores_RGP.masked_fill(absent_RP.unsqueeze(1), 0)
    found = draws(pig, query_RGL, segments, visible)
    assert found is not None
    return found, pig.select(scores_RGP, visible)


def assert_equal(found: Selection, expected: Selection) -> None:
    valid_RC = expected.valid_RC
    assert torch.equal(found.valid_RC, valid_RC)
    assert torch.equal(found.partitions_RC, expected.partitions_RC)
    for mine, other in (
        (found.drawn_RGC, expected.drawn_RGC),
        (found.bias_RGC, expected.bias_RGC),
    ):
        mine_GV, other_GV = (one.transpose(0, 1)[:, valid_RC] for one in (mine, other))
        assert torch.equal(mine_GV, other_GV)


@settings(max_examples=150)
@given(data=st.data(), seed=st.integers(0, 999), bits=st.sampled_from([2, 8, 9]))
def test_one_pass_draws_what_counting_and_selecting_do(data, seed, bits):
    tables = data.draw(st.sampled_from([2, 5, 31, 75]))
    group = data.draw(st.sampled_from([1, 2, 4, 7]))
    budget = data.draw(st.sampled_from([12, 13, 30, 100, 2000, 0.05, 0.5]))
    tokens = data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=4))
    covered = [data.draw(st.integers(0, n)) for n in tokens]
    generator = torch.Generator().manual_seed(seed)
    # Few codes make many collisions, and ties; many make tokens that nobody draws.
    num_codes = data.draw(st.sampled_from([2, 5, 40]))
    width, dtype = 5, torch.uint8 if bits <= 8 else torch.int16
    pool_NCL = torch.randint(0, num_codes, (4 * width, SEGMENT, tables), generator=generator)
    query_RGL = torch.randint(0, num_codes, (len(tokens), group, tables), generator=generator)
    directory_RW = torch.randperm(4 * width, generator=generator)[: len(tokens) * width]
    directory_RW = directory_RW.view(len(tokens), width)
    directory_RW[:, data.draw(st.integers(0, 9)) :: 9] = -1
    visible = Visible(torch.tensor(tokens), max(tokens), covered_R=torch.tensor(covered))
    segments = Segments(by_table(pool_NCL.to(dtype)), directory_RW)
    pig = pig_of(budget, tables, bits)
    assert_equal(*drawn_both_ways(pig, query_RGL.to(dtype), segments, visible))


def test_a_row_draws_the_same_whatever_its_batch_mates():
    pig, generator = pig_of(40, 31, 8), torch.Generator().manual_seed(0)
    pool_NCL = torch.randint(0, 4, (12, SEGMENT, 31), generator=generator).to(torch.uint8)
    pool_NCL = by_table(pool_NCL)
    query_RGL = torch.randint(0, 4, (3, 4, 31), generator=generator).to(torch.uint8)
    directory_RW = torch.arange(12).view(3, 4)
    tokens_R, covered_R = torch.tensor([250, 90, 30]), torch.tensor([240, 80, 0])
    visible = Visible(tokens_R, 250, covered_R=covered_R)
    together = draws(pig, query_RGL, Segments(pool_NCL, directory_RW), visible)
    for row, tokens in enumerate(tokens_R.tolist()):
        here = slice(row, row + 1)
        alone = draws(
            pig,
            query_RGL[here],
            Segments(pool_NCL, directory_RW[here]),
            Visible(tokens_R[here], tokens, covered_R=covered_R[here]),
        )
        valid_C = alone.valid_RC[0]
        taken = slice(0, int(valid_C.sum()))
        assert torch.equal(together.partitions_RC[row, taken], alone.partitions_RC[0, taken])
        assert int(together.valid_RC[row].sum()) == taken.stop
        assert torch.equal(together.drawn_RGC[row, :, taken], alone.drawn_RGC[0, :, taken])
        assert torch.equal(together.bias_RGC[row, :, taken], alone.bias_RGC[0, :, taken])


def test_the_number_of_threads_changes_no_draw():
    pig, generator = pig_of(400, 75, 8), torch.Generator().manual_seed(0)
    pool_NCL = torch.randint(0, 9, (900, SEGMENT, 75), generator=generator).to(torch.uint8)
    pool_NCL = by_table(pool_NCL)
    query_RGL = torch.randint(0, 9, (3, 4, 75), generator=generator).to(torch.uint8)
    segments = Segments(pool_NCL, torch.arange(900).view(3, 300))
    num_tokens_R = torch.tensor([19_000, 9000, 40])
    visible = Visible(num_tokens_R, 19_000, covered_R=num_tokens_R - 7)
    before, found = torch.get_num_threads(), []
    for num_threads in (1, 2, 5):
        torch.set_num_threads(num_threads)
        found.append(draws(pig, query_RGL, segments, visible))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert_equal(other, found[0])


@pytest.mark.parametrize("fault", ["id", "width"])
def test_nothing_outside_the_codes_is_read(fault):
    pig = pig_of(20, 5, 8)
    pool_NCL = by_table(torch.zeros(2, SEGMENT, 5, dtype=torch.uint8))
    directory_RW = torch.tensor([[0, 2 if fault == "id" else 1]])
    if fault == "width":
        directory_RW = directory_RW[:, :1]
    visible = Visible(torch.tensor([120]), 120, covered_R=torch.tensor([110]))
    with pytest.raises(AssertionError, match="outside the pool of 2 segments"):
        draws(pig, pool_NCL[:1, :2].clone(), Segments(pool_NCL, directory_RW), visible)


def test_where_tokens_are_gone_the_plain_way_is_taken():
    pool_NCL = by_table(torch.zeros(2, SEGMENT, 5, dtype=torch.uint8))
    alive_RP = torch.ones(1, 120, dtype=torch.bool)
    visible = Visible(torch.tensor([120]), 120, alive_RP, covered_R=torch.tensor([110]))
    segments = Segments(by_table(pool_NCL), torch.tensor([[0, 1]]))
    assert draws(pig_of(20, 5, 8), pool_NCL[:1, :2], segments, visible) is None
