"""Copies of pages: the compiled one does what torch does, and every byte is counted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_tiers import copies
from memory_tiers.base import KVGeometry
from memory_tiers.copies import compiled_copy, copy_frames, copy_frames_by_torch, copy_pages
from memory_tiers.counters import Counters
from memory_tiers.tiers.arena import Arena
from memory_tiers.tiers.base import DamagedPagesError

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(compiled_copy() is None, reason="no C++ compiler")


def geometry(page_tokens: int, head_dim: int, dtype: torch.dtype = torch.float32) -> KVGeometry:
    return KVGeometry(
        num_layers=1,
        num_kv_heads=1,
        head_dim=head_dim,
        page_tokens=page_tokens,
        dtype=dtype,
        device=CPU,
    )


def arena(name: str, num_frames: int, shape: KVGeometry, seed: int) -> Arena:
    """Random bytes, NaN among them."""
    one = Arena(name, num_frames, shape, CPU)
    generator = torch.Generator().manual_seed(seed)
    one.pool_FPSD.view(torch.uint8).random_(0, 256, generator=generator)
    return one


def raw(pool_FPSD: torch.Tensor) -> torch.Tensor:
    return pool_FPSD.view(torch.uint8)


@needs_compiler
@settings(max_examples=60)
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    page_tokens=st.sampled_from([1, 3, 8, 16]),
    head_dim=st.sampled_from([1, 5, 16, 64]),
    frames=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 19)), max_size=20),
)
def test_the_compiled_copy_is_that_of_torch(dtype, page_tokens, head_dim, frames):
    shape = geometry(page_tokens, head_dim, dtype)
    source, target = arena("cpu", 12, shape, 0), arena("hbm", 20, shape, 1)
    distinct = {to: start for start, to in frames}
    from_N = torch.tensor(list(distinct.values()), dtype=torch.int64)
    to_N = torch.tensor(list(distinct), dtype=torch.int64)
    expected_FPSD = target.pool_FPSD.clone()
    copy_frames_by_torch(source.pool_FPSD, from_N, expected_FPSD, to_N)
    copy_frames(source.pool_FPSD, from_N, target.pool_FPSD, to_N)
    assert torch.equal(raw(target.pool_FPSD), raw(expected_FPSD))


@needs_compiler
def test_threads_change_nothing():
    shape = geometry(16, 64)
    source, target = arena("cpu", 600, shape, 0), arena("hbm", 600, shape, 1)
    assert 600 * shape.page_bytes > 4 * copies.BYTES_PER_THREAD
    from_N, to_N = torch.randperm(600), torch.randperm(600)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        copy_frames(source.pool_FPSD, from_N, target.pool_FPSD, to_N)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(raw(target.pool_FPSD[to_N]), raw(source.pool_FPSD[from_N]))


@needs_compiler
@pytest.mark.parametrize(("start", "to"), [(4, 0), (-1, 0), (0, 4), (0, -1)])
def test_a_frame_outside_of_its_pool_is_refused_before_anything_moves(start, to):
    source, target = (arena(name, 4, geometry(4, 8), seed) for seed, name in enumerate("ab"))
    before = target.pool_FPSD.clone()
    with pytest.raises(AssertionError, match="outside of 4"):
        copy_frames(
            source.pool_FPSD, torch.tensor([1, start]), target.pool_FPSD, torch.tensor([1, to])
        )
    assert torch.equal(raw(target.pool_FPSD), raw(before))


def test_without_a_compiler_torch_copies(monkeypatch):
    monkeypatch.setattr(copies, "compiled_copy", lambda: None)
    source, target = (arena(name, 4, geometry(4, 8), seed) for seed, name in enumerate("ab"))
    copy_pages(source, torch.tensor([3, 1]), target, torch.tensor([0, 2]), Counters())
    assert torch.equal(raw(target.pool_FPSD[[0, 2]]), raw(source.pool_FPSD[[3, 1]]))


def test_only_pages_that_arrived_are_counted(monkeypatch):
    source, target = (arena(name, 4, geometry(4, 8), seed) for seed, name in enumerate("ab"))

    def one_is_damaged(frames_N, pool_FPSD, to_N):
        raise DamagedPagesError("one page", frames_N[:1])

    monkeypatch.setattr(source, "read_into", one_is_damaged)
    counters = Counters()
    with pytest.raises(DamagedPagesError):
        copy_pages(source, torch.tensor([3, 1, 2]), target, torch.tensor([0, 2, 3]), counters)
    assert counters.current.bytes_moved == {"a->b": 2 * source.frame_bytes}


def test_frames_that_come_back_in_any_order_go_out_in_runs():
    one = Arena("hbm", 8, geometry(4, 8), CPU)
    one.allocate(8)
    one.free(torch.tensor([5, 2, 4, 3]))
    assert one.allocate(4).tolist() == [2, 3, 4, 5]
