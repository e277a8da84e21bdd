"""Logits with something added to them, and products alone, against plain loops over the slots."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backends.attention.base import FrameSelection
from tests.parity.exact import SCALE
from tests.parity.test_attention_kernels import DTYPES, KERNELS, decode_case, kernel_of

SHAPES = [(1, 16, 8), (3, 64, 16), (4, 128, 64), (7, 80, 16)]
kernels = pytest.mark.parametrize("name", KERNELS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
shapes = pytest.mark.parametrize(("group_size", "head_dim", "page_size"), SHAPES)


def live_slots(selection: FrameSelection, page_size: int) -> list[tuple[int, int, int]]:
    """Row, frame and slot of each live slot, in order."""
    found = []
    for row in range(len(selection.indptr_R1) - 1):
        for at in range(int(selection.indptr_R1[row]), int(selection.indptr_R1[row + 1])):
            bits = int(selection.live_N[at])
            frame = int(selection.frames_N[at])
            found += [(row, frame, slot) for slot in range(page_size) if bits >> slot & 1]
    return found


def plain_products(query: Tensor, pool: Tensor, slots: list[tuple[int, int, int]]) -> Tensor:
    return torch.stack(
        [query[row].double() @ pool[frame, 0, slot].double() for row, frame, slot in slots], dim=1
    )


@kernels
@dtypes
@shapes
def test_products_are_those_of_the_live_slots(name, dtype, group_size, head_dim, page_size):
    query, pool, selection = decode_case(dtype, group_size, head_dim, page_size)
    found_GV = kernel_of(name, dtype, head_dim, page_size).products(query, pool, selection)
    exact_GV = plain_products(query, pool, live_slots(selection, page_size))
    assert found_GV.dtype == torch.float32
    torch.testing.assert_close(found_GV.double(), exact_GV, atol=1e-3, rtol=1e-3)


@kernels
@dtypes
@shapes
def test_a_bias_is_added_to_the_logits(name, dtype, group_size, head_dim, page_size):
    query, pool, selection = decode_case(dtype, group_size, head_dim, page_size)
    slots = live_slots(selection, page_size)
    bias_GV = torch.randn(group_size, len(slots))
    # The first head is left nothing of most, and at least one row nothing at all.
    bias_GV[0, torch.rand(len(slots)) < 0.9] = -torch.inf
    row_V = torch.tensor([row for row, _, _ in slots])
    bias_GV[:, row_V == row_V[0]] = -torch.inf
    kernel = kernel_of(name, dtype, head_dim, page_size)
    found = kernel.decode(query, pool, replace(selection, bias_GV=bias_GV), SCALE)
    logits_GV = plain_products(query, pool, slots) * SCALE + bias_GV
    for row in range(len(query)):
        mine = row_V == row
        lse_G = logits_GV[:, mine].logsumexp(1)
        values = [pool[frame, 1, slot] for _, frame, slot in (slots[v] for v in mine.nonzero())]
        value_ND = torch.stack(values).double() if values else torch.zeros(0, head_dim).double()
        weight_GN = (logits_GV[:, mine] - lse_G.nan_to_num(neginf=0).unsqueeze(1)).exp()
        off = 2e-2 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(found.lse[row].double(), lse_G, atol=off, rtol=off)
        torch.testing.assert_close(
            found.out[row].double(), weight_GN @ value_ND, atol=off, rtol=off
        )


def test_a_bias_of_another_length_is_refused():
    query, pool, selection = decode_case(torch.float32, 2, 64, 16)
    bias_GV = torch.zeros(2, 3)
    with pytest.raises(AssertionError):
        kernel_of("cpu-cpp", torch.float32, 64, 16).decode(
            query, pool, replace(selection, bias_GV=bias_GV), SCALE
        )
