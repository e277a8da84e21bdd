"""The compiled correction of drawn tokens is the formula, in any part of the slots."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.corrections import compiled_corrections
from backends.drawn import Drawn
from memory_tiers.base import bits_in
from memory_tiers.summary_store import SEGMENT, Segments
from sparse_algos.retrieve.magicpig import LEAST_WEIGHT, MagicPig
from sparse_algos.selection import Selection

ROWS, COLUMNS, WIDTH = 3, 90, 4


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    if compiled_corrections() is None:
        pytest.skip("no compiler")


def draw_of(seed: int, group: int, tables: int, bits: int) -> Drawn:
    """Random draws, whose valid columns come first in some rows and anywhere in others."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    drawn_NGC = some(ROWS, group, COLUMNS) < 0.4
    bias_NGC = torch.zeros(drawn_NGC.shape).masked_fill(some(*drawn_NGC.shape) < 0.5, -torch.inf)
    tokens = torch.randint(0, WIDTH * SEGMENT, (ROWS, COLUMNS), generator=generator)
    selection = Selection(tokens, some(ROWS, COLUMNS) < 0.7, bias_RGC=bias_NGC, drawn_RGC=drawn_NGC)
    directory_RW = torch.randperm(20, generator=generator)[: ROWS * WIDTH].view(ROWS, WIDTH)
    pig = MagicPig(
        budget_tokens=64, tables=tables, bits=bits, sinks=3, recents=5, rebuild_every=4, seed=1
    )
    return Drawn(
        retrieve=pig,
        selection=selection,
        live_N=torch.zeros(0, dtype=torch.int64),
        norms=Segments(some(20, SEGMENT, 1), directory_RW),
        inner_NG=some(ROWS, group) - 0.5,
        norm_NG=some(ROWS, group) + 0.5,
    )


@settings(max_examples=60)
@given(
    seed=st.integers(0, 999),
    group=st.sampled_from([1, 3, 4]),
    tables=st.sampled_from([2, 3, 75, 150]),
    bits=st.integers(1, 15),
    data=st.data(),
)
def test_the_compiled_correction_is_the_formula(seed, group, tables, bits, data):
    drawn = draw_of(seed, group, tables, bits)
    at_V = drawn.selection.valid_RC.flatten().nonzero().squeeze(1)
    before = data.draw(st.integers(0, len(at_V)))
    at_V = at_V[before : before + data.draw(st.integers(0, len(at_V) - before))]
    generator = torch.Generator().manual_seed(seed)
    product_GV = torch.randn(group, len(at_V), generator=generator)
    bias_GV = drawn.bias(product_GV, before)
    assert bias_GV.shape == product_GV.shape
    for v, at in enumerate(at_V.tolist()):
        row, column = divmod(at, COLUMNS)
        token = int(drawn.selection.partitions_RC[row, column])
        segment = int(drawn.norms.directory_RW[row, token // SEGMENT])
        norm = float(drawn.norms.pool_NCE[segment, token % SEGMENT])
        for head in range(group):
            expected = float(drawn.selection.bias_RGC[row, head, column])
            if drawn.selection.drawn_RGC[row, head, column]:
                inner = float(product_GV[head, v]) - float(drawn.inner_NG[row, head])
                cosine = inner / (float(drawn.norm_NG[row, head]) * norm)
                same = (1 - math.acos(min(1, max(-1, cosine))) / math.pi) ** bits
                once = tables * same * (1 - same) ** (tables - 1)
                expected = -math.log(1 - (1 - same) ** tables - once + LEAST_WEIGHT)
            assert float(bias_GV[head, v]) == pytest.approx(expected, abs=2e-4)
    # Float32 leaves little of a weight that is near 0.
    torch.testing.assert_close(bias_GV, drawn.bias_plainly(product_GV, before), atol=0.3, rtol=0)


def test_products_of_other_slots_are_refused():
    drawn = draw_of(0, 2, 75, 8)
    slots = int(drawn.selection.valid_RC.sum())
    assert drawn.bias(torch.zeros(2, slots), 0).shape == (2, slots)
    with pytest.raises(AssertionError, match="not those of the draw"):
        drawn.bias(torch.zeros(2, slots), 1)


def test_a_token_without_a_norm_is_refused():
    drawn = draw_of(0, 2, 75, 8)
    drawn.norms.directory_RW[0] = 20
    with pytest.raises(AssertionError, match="not those of the draw"):
        drawn.bias(torch.zeros(2, int(drawn.selection.valid_RC.sum())), 0)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9))
def test_bits_are_counted_in_all_64(numbers):
    expected = [(number % 2**64).bit_count() for number in numbers]
    assert bits_in(torch.tensor(numbers)).tolist() == expected
