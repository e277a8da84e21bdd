"""Every attention kernel decodes as a plain float64 loop does."""

from dataclasses import replace

import pytest
import torch

from backends.attention import cpu
from backends.attention.base import Attended, merge
from backends.attention.reference import Reference
from memory_tiers import native
from tests.parity.exact import (
    SCALE,
    assert_agrees,
    decode_exactly,
    poisoned_pool,
    ragged,
    selection_of,
)
from tests.parity.kernels import DTYPES, KERNELS, kernel_of


def decode_case(dtype, group_size, head_dim, page_size):
    torch.manual_seed(group_size * head_dim + page_size)
    num_frames = 400
    selection = ragged(page_size, num_frames)
    pool = poisoned_pool(selection, num_frames, page_size, head_dim).to(dtype)
    query = torch.randn(len(selection.indptr_R1) - 1, group_size, head_dim).to(dtype)
    return query, pool, selection


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("page_size", [8, 16, 64])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("group_size", [1, 2, 3, 4, 8, 16])
def test_decode_is_attention_over_the_live_slots(name, dtype, group_size, head_dim, page_size):
    query, pool, selection = decode_case(dtype, group_size, head_dim, page_size)
    kernel = kernel_of(name, dtype, head_dim, page_size)
    exact = decode_exactly(query, pool, selection)
    assert pool.isnan().any()
    assert exact.lse.isneginf().all(1).sum() == 3
    assert_agrees(kernel.decode(query, pool, selection, SCALE), exact, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [48, 80, 96, 256])
def test_decode_serves_every_sixteenth_head_size(dtype, head_dim):
    query, pool, selection = decode_case(dtype, 7, head_dim, 16)
    kernel = kernel_of("cpu-cpp", dtype, head_dim, 16)
    exact = decode_exactly(query, pool, selection)
    assert_agrees(kernel.decode(query, pool, selection, SCALE), exact, dtype)


@pytest.mark.parametrize("without", ["-mno-avx512f", "-mno-avx"])
def test_older_processors_get_the_same_answer(without, monkeypatch):
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, without))
    monkeypatch.setattr(cpu, "load_library", native.load_library.__wrapped__)
    kernel = kernel_of("cpu-cpp", torch.float32, 80, 16)
    for dtype in DTYPES:
        query, pool, selection = decode_case(dtype, 7, 80, 16)
        exact = decode_exactly(query, pool, selection)
        assert_agrees(kernel.decode(query, pool, selection, SCALE), exact, dtype)


@pytest.mark.parametrize("name", KERNELS)
def test_rows_of_one_length_need_no_padding(name):
    torch.manual_seed(0)
    full = (1 << 16) - 1
    selection = selection_of([[full, 5], [full, 0], [full, full]], 20)
    pool = poisoned_pool(selection, 20, 16, 64)
    query = torch.randn(3, 2, 64)
    kernel = kernel_of(name, torch.float32, 64, 16)
    exact = decode_exactly(query, pool, selection)
    assert_agrees(kernel.decode(query, pool, selection, SCALE), exact, torch.float32)


@pytest.mark.parametrize("name", KERNELS)
def test_nothing_selected_is_nothing_attended(name):
    kernel = kernel_of(name, torch.float32, 64, 16)
    for num_rows in (0, 3):
        selection = selection_of([[]] * num_rows, 4)
        query = torch.randn(num_rows, 2, 64)
        attended = kernel.decode(query, torch.full((4, 2, 16, 64), torch.nan), selection, SCALE)
        assert torch.equal(attended.out, torch.zeros(num_rows, 2, 64))
        assert torch.equal(attended.lse, torch.full((num_rows, 2), -torch.inf))


@pytest.mark.parametrize("name", KERNELS)
def test_the_index_type_of_frames_changes_nothing(name):
    query, pool, selection = decode_case(torch.float32, 4, 64, 16)
    kernel = kernel_of(name, torch.float32, 64, 16)
    short = replace(selection, frames_N=selection.frames_N.int())
    wide, narrow = (kernel.decode(query, pool, each, SCALE) for each in (selection, short))
    assert torch.equal(wide.out, narrow.out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(dtype):
    query, pool, selection = decode_case(dtype, 4, 64, 8)
    kernel = kernel_of("cpu-cpp", dtype, 64, 8)
    before = torch.get_num_threads()
    results = []
    for num_threads in (1, 2, 5):
        torch.set_num_threads(num_threads)
        results.append(kernel.decode(query, pool, selection, SCALE))
    torch.set_num_threads(before)
    assert all(torch.equal(each.out, results[0].out) for each in results)
    assert all(torch.equal(each.lse, results[0].lse) for each in results)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("part", [0, 1])
def test_a_live_nan_is_never_hidden(name, dtype, part):
    query, pool, selection = decode_case(dtype, 3, 64, 16)
    pool[selection.frames_N[0], part, 2] = torch.nan
    attended = kernel_of(name, dtype, 64, 16).decode(query, pool, selection, SCALE)
    struck = attended.out.isnan().any(-1).all(-1)
    assert struck.tolist() == [False, True, False, False, False, False, False]


@pytest.mark.parametrize("bad", [-1, 400])
def test_a_frame_outside_the_pool_is_never_read(bad):
    query, pool, selection = decode_case(torch.float32, 1, 64, 16)
    frames = selection.frames_N.clone()
    frames[3] = bad
    kernel = kernel_of("cpu-cpp", torch.float32, 64, 16)
    with pytest.raises(AssertionError, match="outside the pool of 400"):
        kernel.decode(query, pool, replace(selection, frames_N=frames), SCALE)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_halves_merge_into_the_whole(name, dtype):
    query, pool, selection = decode_case(dtype, 4, 64, 16)
    kernel = kernel_of(name, dtype, 64, 16)
    low = 0x00FF
    halves = (replace(selection, live_N=selection.live_N & bits) for bits in (low, ~low))
    first, second = (kernel.decode(query, pool, half, SCALE) for half in halves)
    exact = decode_exactly(query, pool, selection)
    assert second.lse.isneginf().sum() > exact.lse.isneginf().sum()
    assert_agrees(merge(first, second), exact, dtype)


def broken(attended: Attended, what: str) -> Attended:
    """One small fault."""
    out, lse = attended.out.clone(), attended.lse.clone()
    if what == "out":
        out[1, 0, 3] += 0.05 * out.abs().max()
    elif what == "lse":
        lse[2] += 1e-3
    elif what == "nan":
        out[2, 0, 0] = torch.nan
    elif what == "empty out":
        out[0, 0, 0] = 1e-3
    elif what == "empty lse":
        lse[0, 0] = -1e30
    return Attended(out, lse)


@pytest.mark.parametrize("what", ["out", "lse", "nan", "empty out", "empty lse"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_comparison_sees_a_fault(dtype, what):
    query, pool, selection = decode_case(dtype, 2, 16, 8)
    attended = Reference().decode(query, pool, selection, SCALE)
    exact = decode_exactly(query, pool, selection)
    assert_agrees(attended, exact, dtype)
    with pytest.raises(AssertionError):
        assert_agrees(broken(attended, what), exact, dtype)


@pytest.mark.parametrize("name", KERNELS)
def test_the_comparison_sees_one_lost_token_and_one_extra(name):
    query, pool, selection = decode_case(torch.float32, 2, 64, 16)
    kernel = kernel_of(name, torch.float32, 64, 16)
    exact = decode_exactly(query, pool, selection)
    for bit in (1, 1 << 14):
        live = selection.live_N.clone()
        live[5] ^= bit
        attended = kernel.decode(
            query, pool.nan_to_num(0.5), replace(selection, live_N=live), SCALE
        )
        with pytest.raises(AssertionError):
            assert_agrees(attended, exact, torch.float32)
