"""Laws about what attention answers, over every algorithm with every partition that serves it."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from tests.algorithms.inputs import junk
from tests.laws.configs import ALGORITHMS, PLACEMENTS, PLACES, is_served, settings_of
from tests.laws.groups import (
    EXACT,
    GREEDY,
    RETRIEVING,
    SHAPE,
    SHAPES,
    budget_for,
    budgets,
    fast_bytes_for,
    placements,
)
from tests.laws.laws import (
    FULL_BUDGET,
    TIGHT_BUDGET,
    Answers,
    assert_answers_are_exact_over_what_was_read,
    assert_blind_to_batch_mates,
    assert_full_budget_is_dense,
    assert_layer_is_dense,
    assert_moved,
    assert_reads_are_counted,
    assert_same_answers,
    assert_summaries_are_given_back,
    assert_summaries_follow_each_length,
    assert_within_budget,
    converse,
    replay_alone,
)
from tests.laws.system import Shape, System, algorithm_with, build_system


def test_every_option_can_be_placed():
    assert {algo for algo, _ in PLACEMENTS} == set(ALGORITHMS)


@pytest.mark.parametrize(("algo", "partition"), [each for each in PLACEMENTS if each[0] in GREEDY])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_full_budget_is_dense_attention(algo, partition, shape):
    assert_full_budget_is_dense(
        converse(build_system(settings_of(algo, partition), shape, FULL_BUDGET))
    )


@lru_cache
def answers_in_one_tier(algo: str, partition: str) -> Answers:
    """What a system says that has room for everything."""
    return converse(build_system(settings_of(algo, partition), SHAPE, budget_for(algo))).answers


@pytest.mark.parametrize(("algo", "partition", "tier", "cache"), PLACES)
def test_where_a_page_lives_never_changes_the_answer(algo, partition, tier, cache):
    fast_bytes = fast_bytes_for(algo, partition)
    settings = settings_of(algo, partition, tier, cache, fast_bytes=fast_bytes)
    small = converse(build_system(settings, SHAPE, budget_for(algo)))
    assert_moved(small)
    assert small.memory.tiers[0].peak_bytes <= fast_bytes
    assert_same_answers(answers_in_one_tier(algo, partition), small.answers)
    assert_reads_are_counted(small)


@budgets
def test_no_head_reads_more_than_its_budget(algo, partition, budget):
    system = converse(build_system(settings_of(algo, partition), SHAPE, budget))
    assert_within_budget(system)
    assert_reads_are_counted(system)


@pytest.mark.parametrize(("algo", "partition"), [each for each in PLACEMENTS if each[0] in EXACT])
def test_an_answer_is_exact_attention_over_what_was_read(algo, partition):
    system = converse(build_system(settings_of(algo, partition), SHAPE, TIGHT_BUDGET))
    assert_answers_are_exact_over_what_was_read(system)


@placements
@pytest.mark.parametrize("length", [15, 16, 17, 20, 31, 33, 48])
def test_a_window_reads_no_page_that_it_cannot_see(algo, partition, length):
    system = build_system(settings_of(algo, partition), Shape(windowed=frozenset({1}), window=8))
    system.context("long", length, ends=False)
    system.context("long", 5)
    system.question("long", 3)
    system.decode("long")
    assert_reads_are_counted(system)
    windowed = [read for read in system.reads if read.layer == 1]
    assert windowed
    assert all((read.times_RT.sum(1) == 8).all() for read in windowed)


@placements
def test_no_role_acts_on_dense_and_windowed_layers(algo, partition):
    settings = settings_of(algo, partition)
    algorithm = replace(algorithm_with(settings, TIGHT_BUDGET), dense_layers=1)
    shape = replace(SHAPES["a window on layer 1"], layers=4)
    system = converse(build_system(settings, shape, algorithm=algorithm))
    assert_layer_is_dense(system, 0)
    assert_layer_is_dense(system, 1)
    if not algorithm.is_dense:
        with pytest.raises(AssertionError):
            assert_layer_is_dense(system, 3)


@budgets
def test_a_sequence_is_blind_to_its_batch_mates(algo, partition, budget):
    settings = settings_of(algo, partition)
    assert_blind_to_batch_mates(lambda: build_system(settings, SHAPE, budget))


@placements
def test_a_reused_slot_shows_no_trace_of_its_last_sequence(algo, partition):
    settings = settings_of(algo, partition, max_batch=1)
    fresh, used = (build_system(settings, SHAPE, TIGHT_BUDGET) for _ in range(2))
    for uid in ("long", "short"):
        replay_alone(used, uid)
        used.release(uid)
    assert all(tier.num_free == tier.num_frames for tier in used.memory.tiers)
    poison(used)
    replay_alone(fresh, "middle")
    replay_alone(used, "middle")
    assert_same_answers(fresh.answers, {"middle": used.answers["middle"]}, tolerance=0.0)


@pytest.mark.parametrize("algo", RETRIEVING)
def test_a_sequence_that_left_gives_back_its_summaries(algo):
    assert_summaries_are_given_back(build_system(settings_of(algo), SHAPE, TIGHT_BUDGET))


def test_a_short_sequence_takes_no_more_of_the_index_beside_a_long_one():
    system = build_system(settings_of("oracle_topk"), SHAPE, TIGHT_BUDGET)
    assert_summaries_follow_each_length(system)


@placements
def test_what_memory_holds_at_first_never_matters(algo, partition):
    settings = settings_of(algo, partition)
    clean, poisoned = (build_system(settings, SHAPE, TIGHT_BUDGET) for _ in range(2))
    poison(poisoned)
    assert_same_answers(converse(clean).answers, converse(poisoned).answers, tolerance=0.0)


@placements
def test_the_order_of_frames_never_changes_the_answer(algo, partition):
    settings = settings_of(algo, partition)
    ordered, shuffled = (build_system(settings, SHAPE, TIGHT_BUDGET) for _ in range(2))
    for tier in shuffled.memory.tiers:
        frames_F = tier.allocate(tier.num_frames)
        order = torch.randperm(tier.num_frames, generator=torch.Generator().manual_seed(0))
        tier.free(frames_F[order])
    assert_same_answers(converse(ordered).answers, converse(shuffled).answers, tolerance=0.0)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_layout_never_changes_the_answer(algo):
    served = [
        (partition, page_tokens)
        for each, partition in PLACEMENTS
        for page_tokens in (5, 8, 16, 64)
        if each == algo and is_served(algo, partition, page_tokens)
    ]
    assert served
    first, *others = (
        converse(build_system(settings_of(algo, name, page_tokens=size), SHAPE, TIGHT_BUDGET))
        for name, size in served
    )
    for other in others:
        assert_same_answers(first.answers, other.answers)


def poison(system: System) -> None:
    """NaN wherever nothing is kept: in free frames and in summaries that nobody has."""
    for tier in system.memory.tiers:
        frames_F = tier.allocate(tier.num_free)
        tier.pool_FPSD[frames_F] = torch.nan
        tier.free(frames_F)
    if system.attention.index is None:
        return
    index = system.attention.index.store
    table, retrieve = system.memory.table, system.attention.algorithm.retrieve
    rows_R = torch.arange(system.shape.layers * table.num_rows)
    partitions = retrieve.most_partitions(table.token_pages * table.geometry.page_tokens)
    index.reserve(rows_R, partitions)
    rows_N = rows_R.repeat_interleave(partitions)
    partition_N = torch.arange(partitions).repeat(len(rows_R))
    spec = retrieve.summary_spec(system.shape.head_dim, torch.float32)
    summaries = {name: junk((len(rows_N), *one.shape), one.dtype) for name, one in spec.items()}
    index.write(rows_N, partition_N, summaries)
    index.release(rows_R)
