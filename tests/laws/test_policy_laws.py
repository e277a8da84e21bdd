"""Laws of eviction policies, over every option in conf/cache."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.build import build
from memory_tiers.base import EvictionPolicy
from tests.laws.configs import CACHES, settings_of
from tests.laws.policies import (
    CPU,
    Cache,
    assert_is_lru,
    assert_no_better_than_belady,
    belady_misses,
    misses_of,
    plain_lru_misses,
)

TRACES = st.lists(st.integers(0, 9), min_size=1, max_size=60)
STEPS = st.lists(st.sets(st.integers(0, 11), min_size=1, max_size=4), min_size=1, max_size=30)
FRAMES = st.integers(1, 6)
caches = pytest.mark.parametrize("cache", CACHES)
examples = settings(max_examples=60)


def policy_of(cache: str) -> EvictionPolicy:
    return build(settings_of("dense", cache=cache).cache.policy, "cache.policy")


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
def test_a_policy_that_starts_again_remembers_nothing(cache):
    policy = policy_of(cache)
    policy.start(4, CPU)
    policy.touch(torch.arange(4), torch.arange(4))
    policy.start(4, CPU)
    assert policy.victims(4, torch.zeros(4, dtype=torch.bool)).numel() == 0


def test_the_yardsticks_differ_where_they_should():
    # Cyclic access is the worst case of LRU; Belady keeps all but one page.
    trace = [0, 1, 2, 3] * 5
    assert plain_lru_misses(trace, 3) == 20
    assert belady_misses(trace, 3) == 9
    assert misses_of(policy_of("lru"), trace, 3) == 20
