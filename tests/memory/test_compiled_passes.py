"""Compiled passes over frames and pages say what torch says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory_tiers.base import KVGeometry
from memory_tiers.page_table import PageTable
from memory_tiers.policies.ranking import EMPTY, compiled_lowest, lowest, lowest_by_torch
from memory_tiers.sharing import compiled_take, take_by_torch, take_within
from memory_tiers.working_set import WorkingSets, compiled_use

CPU = torch.device("cpu")
RANKS = st.lists(st.sampled_from([0, 1, 2, 3, 9, EMPTY]), min_size=1, max_size=700)


@pytest.mark.skipif(compiled_lowest() is None, reason="there is no compiler")
@given(ranks=RANKS, count=st.integers(0, 300), seed=st.integers(0, 99))
def test_the_lowest_ranks_are_those_of_a_sort(ranks, count, seed):
    rank_F = torch.tensor(ranks)
    generator = torch.Generator().manual_seed(seed)
    pinned_F = torch.rand(len(ranks), generator=generator) < 0.3
    found_N = lowest(rank_F, count, pinned_F)
    if count:
        expected_N = lowest_by_torch(rank_F, count, pinned_F)
        assert rank_F[found_N].tolist() == rank_F[expected_N].tolist()
    assert len(set(found_N.tolist())) == len(found_N) <= count
    assert not pinned_F[found_N].any() and (rank_F[found_N] < EMPTY).all()


@pytest.mark.skipif(compiled_lowest() is None, reason="there is no compiler")
@pytest.mark.parametrize("spread", [1, 7, 10**6])
@pytest.mark.parametrize("count", [1, 300, 5000, 20_000])
def test_a_sample_that_misleads_changes_nothing(spread, count):
    generator = torch.Generator().manual_seed(count)
    rank_F = torch.randint(spread, (20_000,), generator=generator)
    # What is sampled is the highest of all.
    rank_F[::16] += 10**7
    pinned_F = torch.rand(20_000, generator=generator) < 0.5
    found_N = lowest(rank_F, count, pinned_F)
    expected_N = lowest_by_torch(rank_F, count, pinned_F)
    assert rank_F[found_N].tolist() == rank_F[expected_N].tolist()
    assert not pinned_F[found_N].any()


STEPS = st.lists(st.sets(st.integers(0, 4 * 2 * 64 * 2 - 1), min_size=1), max_size=12)


@pytest.mark.skipif(compiled_use() is None, reason="there is no compiler")
@given(steps=STEPS, window=st.integers(1, 4))
def test_working_sets_are_counted_alike(steps, window):
    geometry = KVGeometry(
        num_layers=2, num_kv_heads=2, head_dim=8, page_tokens=4, dtype=torch.float32, device=CPU
    )
    table = PageTable(geometry, 4, 64 * 4)
    compiled, plain = WorkingSets(table, window), WorkingSets(table, window)
    for step in steps:
        pages_N = torch.tensor(sorted(step))
        compiled.use(pages_N)
        plain.use_by_torch(pages_N)
        assert torch.equal(compiled.sizes_B, plain.sizes_B)
        compiled.end_step()
        plain.end_step()
    assert torch.equal(compiled.sizes_B, plain.sizes_B)


@pytest.mark.skipif(compiled_take() is None, reason="there is no compiler")
@given(
    owners=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    left=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    count=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_frames_are_taken_alike(owners, left, count, seed):
    owner_F, left_B = torch.tensor(owners), torch.tensor(left)
    frames_V = torch.randperm(len(owners), generator=torch.Generator().manual_seed(seed))
    one, other = (take(frames_V, owner_F, left_B, count) for take in (take_within, take_by_torch))
    assert torch.equal(one.frames_N, other.frames_N) and torch.equal(one.left_B, other.left_B)
    assert left_B.tolist() == left
    assert len(one.frames_N) <= count and (one.left_B >= 0).all()
