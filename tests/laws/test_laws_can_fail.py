"""Each law, broken once on purpose: a law that cannot fail proves nothing."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch

import memory_tiers.mover
from backends.attention.reference import Reference
from backends.paged_attention import PagedAttention
from backends.prefill_attention import PatternAttention
from memory_tiers.base import EvictionPolicy, PageSelection
from memory_tiers.copies import copy_pages
from memory_tiers.counters import Counters
from memory_tiers.manager import CacheManager
from memory_tiers.partition.identity import Identity
from memory_tiers.policies.lru import Lru
from memory_tiers.row_slots import RowSlots
from memory_tiers.summary_store import SummaryStore
from memory_tiers.tiers.base import Tier
from sparse_algos.evict.streaming import Streaming
from sparse_algos.pattern import BlockPlan
from sparse_algos.retrieve.quest import Quest
from sparse_algos.retriever import Retriever
from sparse_algos.selection import Selection
from tests.laws import test_attention_laws as attention_laws
from tests.laws import test_memory_laws as memory_laws
from tests.laws.configs import settings_of
from tests.laws.laws import (
    FULL_BUDGET,
    TIGHT_BUDGET,
    assert_answers_are_exact_over_what_was_read,
    assert_evicted_tokens_are_gone,
    assert_full_budget_is_dense,
    assert_moved,
    assert_reads_are_counted,
    assert_summaries_are_given_back,
    assert_within_budget,
    converse,
)
from tests.laws.policies import (
    Cache,
    assert_is_lru,
    belady_misses,
    misses_of,
)
from tests.laws.system import System, build_system
from tests.laws.test_retriever_laws import assert_appending_equals_rebuilding

SHAPE = attention_laws.SHAPE


def system_of(algo: str, budget: int | float = TIGHT_BUDGET) -> System:
    return build_system(settings_of(algo), SHAPE, budget)


def test_a_mapper_that_drops_a_slot_is_not_dense(monkeypatch):
    to_pages = Identity.to_pages

    def forgetful(self, *arguments: Any) -> PageSelection:
        pages = to_pages(self, *arguments)
        return replace(pages, live_N=pages.live_N & ~2)

    monkeypatch.setattr(Identity, "to_pages", forgetful)
    with pytest.raises(AssertionError, match="is off by"):
        assert_full_budget_is_dense(converse(system_of("quest", FULL_BUDGET)))


def test_a_retriever_that_reads_everything_exceeds_its_budget(monkeypatch):
    def everything(self, scores_RGP, visible, summaries) -> Selection:
        partition_P = torch.arange(scores_RGP.shape[-1]).expand(len(scores_RGP), -1)
        starts_RP = partition_P * self.partition_size
        return Selection(partition_P, starts_RP < visible.num_tokens_R.unsqueeze(1))

    monkeypatch.setattr(Quest, "select", everything)
    with pytest.raises(AssertionError, match="of \\["):
        assert_within_budget(converse(system_of("quest")))


def test_a_plan_that_loses_a_block_is_not_dense(monkeypatch):
    before_HIP = BlockPlan.before_HIP

    def forgetful(self):
        blocks_HIP = before_HIP(self).clone()
        blocks_HIP[0, -1, 0] = False
        return blocks_HIP

    monkeypatch.setattr(BlockPlan, "before_HIP", forgetful)
    with pytest.raises(AssertionError, match="is off by"):
        assert_full_budget_is_dense(converse(system_of("xattention", FULL_BUDGET)))


def test_a_past_that_is_read_but_not_counted_is_noticed(monkeypatch):
    read = PatternAttention._read

    def silent(self, *arguments: Any) -> None:
        count = self.memory.counters.current
        before = count.pages_read
        read(self, *arguments)
        count.pages_read = before

    monkeypatch.setattr(PatternAttention, "_read", silent)
    with pytest.raises(AssertionError):
        assert_reads_are_counted(converse(system_of("minference")))


def test_the_budget_law_is_empty_when_nothing_is_skipped():
    with pytest.raises(AssertionError, match="the law is empty"):
        assert_within_budget(converse(system_of("quest", FULL_BUDGET)))


def test_a_kernel_that_scales_wrongly_answers_something_else(monkeypatch):
    decode = Reference.decode
    monkeypatch.setattr(
        Reference, "decode", lambda *arguments: decode(*arguments[:-1], arguments[-1] * 1.01)
    )
    with pytest.raises(AssertionError, match="is off by"):
        assert_answers_are_exact_over_what_was_read(converse(system_of("streaming")))


def test_a_copy_that_mixes_up_pages_changes_the_answer(monkeypatch):
    monkeypatch.setattr(
        memory_tiers.mover,
        "copy_pages",
        lambda source, from_N, target, to_N, counters: copy_pages(
            source, from_N.flip(0), target, to_N, counters
        ),
    )
    with pytest.raises(AssertionError, match="is off by"):
        attention_laws.test_where_a_page_lives_never_changes_the_answer(
            "quest", "auto", "hbm+cpu", "lru"
        )


def test_the_placement_law_is_empty_when_nothing_moves():
    system = build_system(settings_of("quest", tier="hbm+cpu"), SHAPE, TIGHT_BUDGET)
    system.context("short", 20)
    with pytest.raises(AssertionError):
        assert_moved(system)


def test_a_plan_that_touches_the_policy_is_no_plan(monkeypatch):
    plan = CacheManager.plan

    def touching(self, wanted_N):
        self.fast.policy.touch(self.frames(wanted_N).clamp(min=0), wanted_N)
        return plan(self, wanted_N)

    monkeypatch.setattr(CacheManager, "plan", touching)
    with pytest.raises(AssertionError, match="planning changed"):
        memory_laws.test_planning_moves_nothing("hbm+cpu", "lru", 0)


def test_a_plan_that_counts_is_no_plan(monkeypatch):
    plan = CacheManager.plan

    def counting(self, wanted_N):
        self.counters.current.pages_wanted += len(wanted_N)
        return plan(self, wanted_N)

    monkeypatch.setattr(CacheManager, "plan", counting)
    with pytest.raises(AssertionError, match="planning changed"):
        memory_laws.test_planning_moves_nothing("hbm+cpu", "lru", 0)


def test_a_share_of_the_longest_mate_is_noticed(monkeypatch):
    monkeypatch.setattr(
        Retriever,
        "columns",
        lambda self, visible: None,
    )
    with pytest.raises(AssertionError, match="is off by"):
        attention_laws.test_a_sequence_is_blind_to_its_batch_mates("oracle_topk", "auto", 0.4)


def test_a_release_that_keeps_the_slots_in_use_leaves_a_trace(monkeypatch):
    monkeypatch.setattr(RowSlots, "release", lambda self, slot: None)
    with pytest.raises(AssertionError, match="slots are in use"):
        attention_laws.test_a_reused_slot_shows_no_trace_of_its_last_sequence("streaming", "auto")


def test_a_store_that_keeps_what_was_released_grows(monkeypatch):
    monkeypatch.setattr(SummaryStore, "release", lambda self, rows_R: None)
    with pytest.raises(AssertionError, match="segments in use"):
        assert_summaries_are_given_back(system_of("quest"))


def test_an_arena_that_loses_a_frame_is_noticed(monkeypatch):
    free = Tier.free
    monkeypatch.setattr(Tier, "free", lambda self, frames_N: free(self, frames_N[1:]))
    with pytest.raises(AssertionError, match="lost frames"):
        memory_laws.assert_conserves_frames("hbm", "lru", "dense", seed=0)


def test_an_evictor_that_keeps_everything_exceeds_its_budget(monkeypatch):
    monkeypatch.setattr(Streaming, "keep", lambda self, held: held.live_RT)
    with pytest.raises(AssertionError, match=" of 64"):
        assert_evicted_tokens_are_gone(converse(system_of("streaming")))


def test_an_uncounted_read_is_noticed(monkeypatch):
    monkeypatch.setattr(PagedAttention, "_count_read", lambda self, batch, pages: None)
    with pytest.raises(AssertionError):
        assert_reads_are_counted(converse(system_of("quest")))


def test_an_uncounted_copy_is_noticed(monkeypatch):
    monkeypatch.setattr(
        memory_laws,
        "copy_pages",
        lambda source, from_N, target, to_N, _: copy_pages(
            source, from_N, target, to_N, Counters()
        ),
    )
    with pytest.raises(AssertionError):
        memory_laws.test_bytes_moved_are_those_of_the_copies("hbm+cpu", "lru", "quest", monkeypatch)


def test_an_append_that_forgets_is_no_rebuild(monkeypatch):
    monkeypatch.setattr(Quest, "append", lambda self, old, new: old)
    quest = Quest(
        budget_tokens=TIGHT_BUDGET, sinks=4, recents=16, group_reduce="max", block_tokens=16
    )
    with pytest.raises(AssertionError):
        assert_appending_equals_rebuilding(quest, torch.randn(2, 20, 16), start=10)


class Greedy(Lru):
    """Gives up the oldest frames, pinned or not."""

    def victims(self, count, pinned_F):
        return super().victims(count, torch.zeros_like(pinned_F))


class Newest(Lru):
    """Gives up the frame that was used last."""

    def victims(self, count, pinned_F):
        filled = super().victims(self._used_F.numel(), pinned_F)
        return filled.flip(0)[:count]


def fill(policy: EvictionPolicy) -> None:
    """The last step wants a page that is the oldest, and one that is absent."""
    cache = Cache(policy, 3)
    for pages in ([0], [1], [2], [0, 3]):
        cache.ask(pages)


def test_a_policy_that_evicts_pinned_frames_is_refused():
    fill(Lru())
    with pytest.raises(AssertionError, match="a pinned frame was given up"):
        fill(Greedy())


def test_a_policy_that_evicts_the_newest_is_not_lru():
    trace = [0, 1, 2, 3] * 3
    assert_is_lru(Lru(), trace, 3)
    with pytest.raises(AssertionError, match="at access"):
        assert_is_lru(Newest(), trace, 3)
    assert belady_misses(trace, 3) <= misses_of(Newest(), trace, 3) < misses_of(Lru(), trace, 3)


@pytest.mark.parametrize("seed", range(5))
def test_belady_is_the_best_of_all_choices(seed):
    trace = torch.randint(0, 4, (9,), generator=torch.Generator().manual_seed(seed)).tolist()
    assert belady_misses(trace, 2) == brute_force(trace, 2)


def brute_force(trace: list[int], num_frames: int) -> int:
    """Fewest misses over every sequence of evictions."""
    return min(
        misses_with(trace, num_frames, choices)
        for choices in product(range(num_frames), repeat=len(trace) - num_frames)
    )


def misses_with(trace: list[int], num_frames: int, choices: tuple[int, ...]) -> int:
    """Misses when the frame to give up is read from a list."""
    held: list[int] = []
    rest, misses = iter(choices), 0
    for page in trace:
        if page in held:
            continue
        misses += 1
        if len(held) < num_frames:
            held.append(page)
        else:
            held[next(rest)] = page
    return misses
