"""Laws of eviction policies, over every option in conf/cache."""

from collections.abc import Sequence
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.build import build
from harness.settings import Component
from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.belady import Belady
from memory_tiers.policies.bucketed_lru import BucketedLru
from tests.laws.configs import CACHES, settings_of
from tests.laws.policies import (
    CPU,
    Cache,
    assert_is_lru,
    assert_no_better_than_belady,
    assert_victims_are_allowed,
    belady_misses,
    decode_steps,
    fewest_misses,
    hit_ratio,
    misses_of,
    misses_of_steps,
    plain_lru_misses,
)

TRACES = st.lists(st.integers(0, 9), min_size=1, max_size=60)
STEPS = st.lists(st.sets(st.integers(0, 11), min_size=1, max_size=4), min_size=1, max_size=30)
FRAMES = st.integers(1, 6)
caches = pytest.mark.parametrize("cache", CACHES)
examples = settings(max_examples=40)


@lru_cache
def component_of(cache: str) -> Component:
    return settings_of("dense", cache=cache).cache.policy


def policy_of(cache: str) -> EvictionPolicy:
    return build(component_of(cache), "cache.policy")


def oracle_of(steps: Sequence[Sequence[int]]) -> Belady:
    return Belady([torch.tensor(pages) for pages in steps])


def in_order(steps: Sequence[set[int]]) -> list[list[int]]:
    return [sorted(pages) for pages in steps]


def num_values(part: object) -> int:
    """Numbers in the tensors of a policy and of its parts."""
    if isinstance(part, Tensor):
        return part.numel()
    return sum(num_values(value) for value in getattr(part, "__dict__", {}).values())


@caches
@examples
@given(trace=TRACES, num_frames=FRAMES)
def test_no_policy_beats_belady(cache, trace, num_frames):
    assert_no_better_than_belady(policy_of(cache), trace, num_frames)


@caches
@examples
@given(steps=STEPS, num_frames=st.integers(4, 8))
def test_victims_are_filled_distinct_and_never_pinned(cache, steps, num_frames):
    asked = Cache(policy_of(cache), num_frames)
    for step in steps:
        asked.ask(sorted(step))
        assert len(asked.frame_of) <= num_frames


@examples
@given(trace=TRACES, num_frames=FRAMES)
def test_lru_is_the_lru_of_the_textbook(trace, num_frames):
    assert_is_lru(policy_of("lru"), trace, num_frames)


@caches
def test_naming_victims_changes_nothing(cache):
    policy = policy_of(cache)
    policy.start(8, CPU)
    for frame in (3, 1, 4, 0, 5):
        policy.touch(torch.tensor([frame]), torch.tensor([frame]))
    nobody_F = torch.zeros(8, dtype=torch.bool)
    first = policy.victims(2, nobody_F)
    assert torch.equal(policy.victims(2, nobody_F), first)
    assert set(policy.victims(9, nobody_F).tolist()) == {0, 1, 3, 4, 5}


@caches
def test_what_was_forgotten_is_not_given_up(cache):
    policy = policy_of(cache)
    policy.start(8, CPU)
    for _ in range(2):
        policy.touch(torch.arange(4), torch.arange(4))
    policy.touch(torch.arange(4, 8), torch.arange(4, 8))
    policy.forget(torch.tensor([1, 6]))
    named = policy.victims(8, torch.zeros(8, dtype=torch.bool))
    assert sorted(named.tolist()) == [0, 2, 3, 4, 5, 7]


@caches
def test_a_policy_that_starts_again_remembers_nothing(cache):
    policy = policy_of(cache)
    policy.start(4, CPU)
    policy.touch(torch.arange(4), torch.arange(4))
    policy.start(4, CPU)
    assert policy.victims(4, torch.zeros(4, dtype=torch.bool)).numel() == 0


@caches
@examples
@given(steps=STEPS, num_frames=st.integers(4, 8))
def test_no_policy_beats_belady_where_pages_are_asked_for_together(cache, steps, num_frames):
    asked = in_order(steps)
    bound = misses_of_steps(oracle_of(asked), asked, num_frames)
    assert misses_of_steps(policy_of(cache), asked, num_frames) >= bound


@settings(max_examples=100)
@given(steps=st.lists(st.sets(st.integers(0, 6), min_size=1, max_size=3), max_size=9))
@pytest.mark.parametrize("num_frames", [3, 4])
def test_belady_is_the_best_where_pages_are_asked_for_together(steps, num_frames):
    asked = in_order([{0}, *steps])
    assert misses_of_steps(oracle_of(asked), asked, num_frames) == fewest_misses(asked, num_frames)


@caches
@examples
@given(steps=STEPS)
def test_a_policy_decides_the_same_each_time(cache, steps):
    twins = [Cache(policy_of(cache), 5) for _ in range(2)]
    for pages in in_order(steps):
        for twin in twins:
            twin.ask(pages)
        assert twins[0].frame_of == twins[1].frame_of


@caches
@examples
@given(
    kept=st.sets(st.integers(0, 39), max_size=39), count=st.integers(0, 40), seed=st.integers(0, 9)
)
def test_frames_that_others_may_not_take_stay(cache, kept, count, seed):
    policy = policy_of(cache)
    policy.start(40, CPU)
    generator = torch.Generator().manual_seed(seed)
    for start in (0, 10, 20, 15, 5):
        policy.touch(torch.arange(start, start + 10), torch.arange(start, start + 10))
    for _ in range(8):
        frames_N = torch.randperm(30, generator=generator)[:6]
        policy.touch(frames_N, frames_N)
    pinned_F = torch.zeros(40, dtype=torch.bool)
    pinned_F[list(kept)] = True
    assert_victims_are_allowed(
        policy.victims(count, pinned_F).tolist(), count, kept, set(range(30))
    )


@caches
def test_what_a_policy_remembers_does_not_grow_with_the_pages_it_has_seen(cache):
    policy = policy_of(cache)
    policy.start(64, CPU)
    at_start = num_values(policy)
    assert 0 < at_start <= 64 * 40
    page = 1 << 40
    for seed in range(200):
        nobody_F = torch.zeros(64, dtype=torch.bool)
        frames_N = policy.victims(seed % 17, nobody_F) if seed else torch.arange(64)
        policy.forget(frames_N)
        policy.touch(frames_N, torch.arange(page, page + frames_N.numel()))
        page += 1000 * frames_N.numel()
    assert num_values(policy) == at_start


# Random ranks frames by their number and keeps no history.
@pytest.mark.parametrize("cache", [cache for cache in CACHES if cache != "random"])
@pytest.mark.parametrize("gone", range(3))
def test_a_frame_that_is_filled_again_has_no_history(cache, gone):
    orders = []
    for refilled in (gone, 3):
        policy = policy_of(cache)
        policy.start(4, CPU)
        page_of = {0: 0, 1: 1, 2: 2}
        for frame in (0, 0, 0, 0, 1, 1, 1, 2, 0):
            policy.touch(torch.tensor([frame]), torch.tensor([page_of[frame]]))
        policy.forget(torch.tensor([gone]))
        del page_of[gone]
        page_of[refilled] = 9
        policy.touch(torch.tensor([refilled]), torch.tensor([9]))
        named = policy.victims(4, torch.zeros(4, dtype=torch.bool)).tolist()
        orders.append([page_of[frame] for frame in named])
    assert orders[0] == orders[1]


@examples
@given(trace=TRACES, num_frames=FRAMES)
def test_bucketed_lru_with_a_bucket_per_touch_is_lru(trace, num_frames):
    assert_is_lru(BucketedLru(buckets=60), trace, num_frames)


@examples
@given(trace=TRACES, num_frames=FRAMES)
def test_bucketed_lru_with_twice_as_many_buckets_as_frames_is_lru(trace, num_frames):
    assert_is_lru(BucketedLru(buckets=2 * num_frames), trace, num_frames)


@pytest.mark.parametrize("frames_per_wanted", [1.5, 2, 4])
@pytest.mark.parametrize("persistence", [0.7, 0.95])
def test_bucketed_lru_hits_within_a_point_of_lru(frames_per_wanted, persistence):
    steps = decode_steps(layers=16, pages=256, wanted=16, steps=60, persistence=persistence, seed=0)
    num_frames = int(16 * 16 * frames_per_wanted)
    exact = hit_ratio(policy_of("lru"), steps, num_frames)
    bucketed = hit_ratio(policy_of("bucketed_lru"), steps, num_frames)
    assert 0.3 < exact < hit_ratio(Belady(steps), steps, num_frames)
    assert abs(bucketed - exact) < 0.01


def test_the_yardsticks_differ_where_they_should():
    # Cyclic access is the worst case of LRU; Belady keeps all but one page.
    trace = [0, 1, 2, 3] * 5
    assert plain_lru_misses(trace, 3) == 20
    assert belady_misses(trace, 3) == 9
    assert misses_of(policy_of("lru"), trace, 3) == 20
