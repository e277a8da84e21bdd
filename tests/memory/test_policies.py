"""Single policies: equal to their textbooks where they can be, near them elsewhere."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.arc import Arc
from memory_tiers.policies.belady import Belady
from memory_tiers.policies.bucketed_lru import BucketedLru
from memory_tiers.policies.fifo import Fifo
from memory_tiers.policies.ghosts import Ghosts
from memory_tiers.policies.lfu import Lfu
from memory_tiers.policies.random import Random
from memory_tiers.policies.s3fifo import S3Fifo
from tests.laws.policies import CPU, Cache, misses_of
from tests.memory.plain_policies import PlainArc, PlainFifo, PlainLfu, PlainS3Fifo

TRACES = st.lists(st.integers(0, 9), min_size=1, max_size=80)
FRAMES = st.integers(1, 6)
examples = settings(max_examples=60)


def assert_is_the_textbook(policy: EvictionPolicy, plain, trace: list[int]) -> None:
    """Page by page the same pages are held."""
    cache = Cache(policy, plain.num_frames)
    for count, page in enumerate(trace, start=1):
        cache.ask([page])
        plain.read(page)
        assert set(cache.frame_of) == plain.held, f"at access {count}"


def misses_of_plain(plain, trace: list[int]) -> int:
    misses = 0
    for page in trace:
        misses += page not in plain.held
        plain.read(page)
    return misses


def skewed_trace(seed: int, accesses: int = 2000) -> list[int]:
    """Few pages often and many seldom, the popular ones changing halfway, and scans in between."""
    generator = torch.Generator().manual_seed(seed)
    weight_P = 1 / torch.arange(1, 301, dtype=torch.float64)
    drawn = weight_P.multinomial(accesses, replacement=True, generator=generator)
    drawn[accesses // 2 :] = (drawn[accesses // 2 :] + 150) % 300
    drawn[::700] = 1000
    trace = drawn.tolist()
    return [
        page for access in trace for page in (range(1000, 1060) if access == 1000 else (access,))
    ]


@examples
@given(trace=TRACES, num_frames=FRAMES)
def test_fifo_is_the_fifo_of_the_textbook(trace, num_frames):
    assert_is_the_textbook(Fifo(), PlainFifo(num_frames), trace)


@examples
@given(trace=TRACES, num_frames=FRAMES)
def test_lfu_without_ageing_is_the_lfu_of_the_textbook(trace, num_frames):
    assert_is_the_textbook(Lfu(period=None), PlainLfu(num_frames), trace)


@settings(max_examples=200)
@given(trace=TRACES, num_frames=FRAMES)
def test_arc_is_the_arc_of_the_textbook_with_its_target_moved_after_the_eviction(trace, num_frames):
    assert_is_the_textbook(Arc(), PlainArc(num_frames, late=True), trace)


@pytest.mark.parametrize("num_frames", [20, 60])
@pytest.mark.parametrize("seed", range(2))
def test_arc_is_that_on_long_traces_too(seed, num_frames):
    trace = skewed_trace(seed)
    assert_is_the_textbook(Arc(), PlainArc(num_frames, late=True), trace)


@pytest.mark.parametrize("num_frames", [6, 10])
def test_arc_is_that_where_the_pages_change_too(num_frames):
    generator = torch.Generator().manual_seed(0)
    hot_N = torch.randint(12, (300,), generator=generator)
    wide_N = torch.randint(100, 125, (300,), generator=generator)
    trace = torch.cat((hot_N, wide_N, hot_N[:100])).tolist()
    assert_is_the_textbook(Arc(), PlainArc(num_frames, late=True), trace)


@pytest.mark.parametrize("num_frames", [20, 60])
@pytest.mark.parametrize("seed", range(2))
def test_arc_hits_like_the_arc_of_the_paper(seed, num_frames):
    trace = skewed_trace(seed)
    ours = misses_of_plain(PlainArc(num_frames, late=True), trace)
    papers = misses_of_plain(PlainArc(num_frames, late=False), trace)
    assert abs(ours - papers) < 0.01 * len(trace)


@pytest.mark.parametrize("num_frames", [20, 60])
@pytest.mark.parametrize("seed", range(2))
def test_s3fifo_hits_like_the_s3fifo_of_the_paper(seed, num_frames):
    trace = skewed_trace(seed)
    papers = misses_of_plain(PlainS3Fifo(num_frames, max_small=num_frames // 10), trace)
    ours = misses_of(S3Fifo(small_share=0.1), trace, num_frames)
    assert abs(ours - papers) < 0.01 * len(trace)
    assert ours < misses_of(Fifo(), trace, num_frames) - 0.05 * len(trace)


def test_a_scan_leaves_the_main_queue_of_s3fifo_alone():
    cache = Cache(S3Fifo(small_share=0.1), 20)
    popular = list(range(15))
    for _ in range(3):
        cache.ask(popular)
    for page in range(100, 200):
        cache.ask([page])
    assert set(popular) <= set(cache.frame_of)


def test_a_page_that_comes_back_soon_joins_the_main_queue_of_s3fifo():
    cache = Cache(S3Fifo(small_share=0.1), 20)
    for page in (*range(21), 0, *range(100, 130)):
        cache.ask([page])
    assert 0 in cache.frame_of
    assert 1 not in cache.frame_of


def test_counts_of_lfu_age():
    survivors = {}
    for period in (2, None):
        cache = Cache(Lfu(period=period), 3)
        for page in [0] * 40 + [1, 2] * 10 + [3]:
            cache.ask([page])
        survivors[period] = 0 in cache.frame_of
    assert survivors == {2: False, None: True}


def test_random_gives_up_every_frame_as_often():
    policy, nobody_F = Random(seed=3), torch.zeros(50, dtype=torch.bool)
    policy.start(50, CPU)
    policy.touch(torch.arange(50), torch.arange(50))
    named = []
    for _ in range(2000):
        policy.touch(torch.tensor([0]), torch.tensor([0]))
        named.append(policy.victims(5, nobody_F))
    counts_F = torch.cat(named).bincount(minlength=50)
    # 200 each: five standard deviations of a binomial are 67.
    assert counts_F.min() > 133
    assert counts_F.max() < 267
    shared = [len(set(one.tolist()) & set(two.tolist())) for one, two in pairwise(named)]
    assert sum(shared) < len(shared)


def test_random_differs_by_its_seed():
    firsts = set()
    for seed in range(8):
        policy = Random(seed=seed)
        policy.start(50, CPU)
        policy.touch(torch.arange(50), torch.arange(50))
        firsts.add(int(policy.victims(1, torch.zeros(50, dtype=torch.bool))))
    assert len(firsts) > 3


PAGES = st.sets(st.integers(0, 30), max_size=9)


@settings(max_examples=100)
@given(
    capacity=st.integers(1, 8),
    steps=st.lists(st.tuples(PAGES, PAGES, st.integers(0, 9)), max_size=20),
)
def test_ghosts_are_the_last_pages_that_went(capacity, steps):
    ghosts, plain = Ghosts(capacity, CPU), []
    for added, asked, length in steps:
        added -= set(plain)
        ghosts.add(torch.tensor(sorted(added), dtype=torch.int64))
        plain = [*plain, *sorted(added)][-capacity:]
        found = ghosts.take(torch.tensor(sorted(asked), dtype=torch.int64))
        assert found.tolist() == [page in plain for page in sorted(asked)]
        plain = [page for page in plain if page not in asked]
        ghosts.trim(length)
        plain = plain[-length:] if length else []
        assert len(ghosts) == len(plain) <= capacity


def test_few_ghosts_are_lost_to_others_with_their_hash():
    capacity = 4096
    ghosts = Ghosts(capacity, CPU)
    pages_N = torch.randperm(1 << 24, generator=torch.Generator().manual_seed(0))[:capacity] << 10
    ghosts.add(pages_N)
    assert ghosts.take(pages_N).double().mean() > 0.9
    assert not ghosts.take(pages_N + 1).any()


@pytest.mark.parametrize(
    ("policy", "arguments"),
    [
        (BucketedLru, {"buckets": 1}),
        (BucketedLru, {"buckets": 256}),
        (Lfu, {"period": 0}),
        (S3Fifo, {"small_share": 0}),
        (S3Fifo, {"small_share": 1.0}),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_key(policy, arguments):
    (name, value), *_ = arguments.items()
    with pytest.raises(ValueError, match=rf"^cache\.policy\.{name}={value} must be [^\n]*$"):
        policy(**arguments)


def test_belady_serves_no_other_future():
    oracle = Belady([torch.tensor([1, 2]), torch.tensor([3])])
    oracle.start(4, CPU)
    oracle.touch(torch.tensor([0, 1]), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"^touch 1 is not the one [^\n]*$"):
        oracle.touch(torch.tensor([2]), torch.tensor([4]))


def test_belady_starts_its_future_again():
    oracle = Belady([torch.tensor([page]) for page in (0, 1, 2, 0, 1, 2)])
    assert [misses_of(oracle, [0, 1, 2, 0, 1, 2], 2) for _ in range(2)] == [4, 4]
