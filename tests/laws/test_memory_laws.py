"""Laws of the cache manager: plans, frames, counters, over every tier and cache in conf/."""

import random
from collections import Counter

import pytest
import torch

import memory_tiers.mover
from memory_tiers.copies import copy_pages
from tests.laws.configs import CACHES, HIERARCHIES, MEMORIES, PLACEMENTS, options, settings_of
from tests.laws.laws import (
    TIGHT_BUDGET,
    assert_frames_are_conserved,
    assert_planning_moves_nothing,
    converse,
    frames_of,
    names,
    page_bytes,
)
from tests.laws.system import MAX_TOKENS, Shape, System, algorithm_with, build_system

SHAPE = Shape()
PAGE_BYTES = 16 * 2 * SHAPE.head_dim * 4
FAST_PAGES = 30
hierarchies = pytest.mark.parametrize("tier", HIERARCHIES)
caches = pytest.mark.parametrize("cache", CACHES)
memories = pytest.mark.parametrize(("tier", "cache"), MEMORIES)


def small_system(algo: str, tier: str, cache: str) -> System:
    fast_bytes = FAST_PAGES * PAGE_BYTES
    return build_system(
        settings_of(algo, "auto", tier, cache, fast_bytes=fast_bytes), SHAPE, TIGHT_BUDGET
    )


def partly_resident(system: System, count: int, seed: int) -> torch.Tensor:
    """Ids of stored pages, some in the fast tier and some only below it."""
    memory = system.memory
    stored_N = (frames_of(memory) >= 0).any(0).nonzero().squeeze(1)
    resident = memory.frames(stored_N) >= 0
    generator = torch.Generator().manual_seed(seed)
    halves = []
    for half_N in (stored_N[resident], stored_N[~resident]):
        halves.append(half_N[torch.randperm(len(half_N), generator=generator)[: count // 2]])
    return torch.cat(halves)


@memories
@pytest.mark.parametrize("seed", range(2))
def test_planning_moves_nothing(tier, cache, seed):
    system = small_system("quest", tier, cache)
    system.context("long", 150)
    system.context("middle", 60)
    assert_planning_moves_nothing(system, partly_resident(system, 16, seed))


@memories
def test_a_plan_takes_the_pages_it_wants_from_nobody(tier, cache):
    system = small_system("dense", tier, cache)
    system.context("long", 150)
    wanted_N = partly_resident(system, 2 * FAST_PAGES, seed=0)[-FAST_PAGES:]
    plan = system.memory.plan(wanted_N)
    assert not set(plan.victims_N.tolist()) & set(wanted_N.tolist())
    system.memory.execute(plan)
    assert (system.memory.frames(wanted_N) >= 0).all()


@memories
@pytest.mark.parametrize("algo", ["dense", "quest", "streaming"])
def test_bytes_moved_are_those_of_the_copies(tier, cache, algo, monkeypatch):
    seen: Counter[str] = Counter()

    def watched(source, from_N, target, to_N, counters):
        moved = source.read(from_N).nbytes
        seen.update({f"{source.name}->{target.name}": moved} if moved else {})
        copy_pages(source, from_N, target, to_N, counters)
        assert torch.equal(source.read(from_N), target.read(to_N))

    monkeypatch.setattr(memory_tiers.mover, "copy_pages", watched)
    system = converse(small_system(algo, tier, cache))
    assert seen.total() > 0
    assert system.memory.counters.current.bytes_moved == seen


def test_a_batch_that_cannot_append_at_one_time_is_refused_before_it_runs():
    with pytest.raises(ValueError, match=r"tier\.hbm\.size=\S+ holds 5 pages, .* needs 6 "):
        build_system(
            settings_of("dense", tier="hbm+cpu", fast_bytes=5 * PAGE_BYTES, chunk_tokens=16), SHAPE
        )
    fits = settings_of("dense", tier="hbm+cpu", fast_bytes=6 * PAGE_BYTES, chunk_tokens=16)
    converse(build_system(fits, SHAPE))


@pytest.mark.parametrize("tier", options("tier"))
@pytest.mark.parametrize("algo", ["dense", "quest", "streaming"])
def test_frames_are_conserved(tier, algo):
    assert_conserves_frames(tier, "lru", algo, seed=0)


@caches
def test_frames_are_conserved_whoever_evicts(cache):
    assert_conserves_frames("hbm+cpu+disk", cache, "quest", seed=1)


def assert_conserves_frames(tier, cache, algo, seed):
    is_small = tier in HIERARCHIES
    system = small_system(algo, tier, cache) if is_small else roomy_system(algo, tier, cache)
    memory = system.memory
    live_randomly(system, random.Random(seed))
    for uid in list(system.holds):
        system.release(uid)
        assert_frames_are_conserved(memory)
    assert all(tier.num_free == tier.num_frames for tier in memory.tiers)
    assert (frames_of(memory) < 0).all() and not memory.fast.changed_F.any()
    assert memory.table.dead_P is None or not memory.table.dead_P.any()
    assert memory.tiers[0].frame_bytes == page_bytes(system) == PAGE_BYTES
    assert all(tier.peak_bytes > 0 for tier in memory.tiers)
    if is_small:
        assert memory.tiers[0].peak_bytes <= FAST_PAGES * PAGE_BYTES


@hierarchies
@pytest.mark.parametrize(("algo", "partition"), PLACEMENTS)
@pytest.mark.parametrize("chunk_tokens", [8, 64])
def test_the_least_memory_that_preflight_accepts_is_enough(tier, algo, partition, chunk_tokens):
    evict = algorithm_with(settings_of(algo), None).evict
    if evict is not None:
        chunk_tokens = max(chunk_tokens, evict.window or 1)
    for pages in range(1, 400):
        settings = settings_of(
            algo, partition, tier, fast_bytes=pages * PAGE_BYTES, chunk_tokens=chunk_tokens
        )
        try:
            system = build_system(settings, SHAPE, TIGHT_BUDGET)
        except ValueError as refusal:
            assert "holds" in str(refusal) and "\n" not in str(refusal)
            continue
        assert pages > 1, "the law is empty"
        converse(system)
        return
    pytest.fail("preflight accepts nothing")


def test_the_pages_of_a_partition_that_began_before_a_chunk_have_room_too():
    def of(pages: int) -> System:
        settings = settings_of(
            "quest of 32",
            tier="hbm+cpu",
            fast_bytes=pages * PAGE_BYTES,
            max_batch=1,
            chunk_tokens=50,
        )
        return build_system(settings, SHAPE, TIGHT_BUDGET)

    with pytest.raises(ValueError, match="a chunk of 50 tokens"):
        of(11)
    system = of(12)
    for count in (31, 50, 50):
        system.context("long", count)


@memories
def test_a_page_that_did_not_change_is_not_written_back_twice(tier, cache):
    system = small_system("dense", tier, cache)
    system.context("long", 150)
    fast, lower = names(system)[:2]
    pages_N = (frames_of(system.memory) >= 0).any(0).nonzero().squeeze(1)
    first_N, second_N = pages_N[:FAST_PAGES], pages_N[-FAST_PAGES:]
    for wanted_N in (first_N, second_N, first_N):
        system.memory.fetch(wanted_N)
    moved = system.memory.counters.current.bytes_moved
    before = Counter(moved)
    for wanted_N in (second_N, first_N):
        system.memory.fetch(wanted_N)
    assert moved[f"{fast}->{lower}"] == before[f"{fast}->{lower}"] > 0
    assert moved[f"{lower}->{fast}"] - before[f"{lower}->{fast}"] == 2 * FAST_PAGES * PAGE_BYTES


def roomy_system(algo: str, tier: str, cache: str) -> System:
    return build_system(settings_of(algo, "auto", tier, cache), SHAPE, TIGHT_BUDGET)


def live_randomly(system: System, choices: random.Random) -> None:
    """Sequences are admitted, grow, and are released, in any order."""
    for number in range(40):
        live = [uid for uid in system.holds if system.stored[uid] < MAX_TOKENS - 20]
        action = choices.choice(["admit", "decode", "question", "decode", "release"])
        if action == "admit" and system.slots:
            system.context(f"sequence {number}", choices.randint(1, 110))
        elif action == "decode" and live:
            system.decode(*choices.sample(live, choices.randint(1, len(live))))
        elif action == "question" and live:
            system.question(choices.choice(live), choices.randint(1, 20))
        elif action == "release" and system.holds:
            system.release(choices.choice(list(system.holds)))
        if number % 5 == 0:
            assert_frames_are_conserved(system.memory)
