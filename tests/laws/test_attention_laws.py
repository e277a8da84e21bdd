"""Laws about what attention answers, over every algorithm with every partition that serves it."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from harness.preflight import plan_for
from tests.algorithms.inputs import junk
from tests.laws.configs import ALGORITHMS, PLACEMENTS, PLACES, is_served, settings_of
from tests.laws.laws import (
    FULL_BUDGET,
    LENGTHS,
    TIGHT_BUDGET,
    Answers,
    assert_answers_are_exact_over_what_was_read,
    assert_blind_to_batch_mates,
    assert_evicted_tokens_are_gone,
    assert_full_budget_is_dense,
    assert_layer_is_dense,
    assert_moved,
    assert_reads_are_counted,
    assert_same_answers,
    assert_summaries_are_given_back,
    assert_summaries_follow_each_length,
    assert_within_budget,
    converse,
    held_at_most,
    replay_alone,
)
from tests.laws.system import MAX_TOKENS, Shape, System, algorithm_with, build_system

SHAPE = Shape()
SHAPES = {
    "one query head per kv head": Shape(group=1, kv_heads=3),
    "two": Shape(group=2, kv_heads=1),
    "four": Shape(group=4),
    "a window on layer 1": Shape(windowed=frozenset({1}), window=20),
}
EVICTORS = [
    name for name in ALGORITHMS if algorithm_with(settings_of(name), None).evict is not None
]
# Evictors that ask what every step attends to, which nobody knows who reads a part.
WATCHING = [
    name
    for name in EVICTORS
    for evict in [algorithm_with(settings_of(name), None).evict]
    if evict.sees == "attention" and evict.decodes
]
COMPOSED = [name for name in EVICTORS if name not in WATCHING]
RETRIEVING = [
    name for name in ALGORITHMS if algorithm_with(settings_of(name), None).retrieve is not None
]
CLUSTERING = [
    name
    for name in RETRIEVING
    if algorithm_with(settings_of(name), None).retrieve.kind == "cluster"
]
# What relies on tokens staying, and staying in place.
ROOTED = [
    name
    for name in RETRIEVING
    if name in CLUSTERING or algorithm_with(settings_of(name), None).retrieve.needs_positions
]


def is_exact(name: str) -> bool:
    """Whether answers are attention over what was read, and nothing else."""
    retrieve = algorithm_with(settings_of(name), None).retrieve
    return retrieve is None or not (retrieve.estimates or retrieve.corrects)


EXACT = [name for name in ALGORITHMS if is_exact(name)]
# Retrievers that read all that their budget allows.
GREEDY = [
    name
    for name in ALGORITHMS
    if name not in RETRIEVING or not algorithm_with(settings_of(name), None).retrieve.prunes
]
# An evictor's budget is a count of tokens, a retriever's may be a share.
BUDGETED = [
    (algo, partition, budget) for algo, partition in PLACEMENTS for budget in (TIGHT_BUDGET, 0.4)
]
budgets = pytest.mark.parametrize(("algo", "partition", "budget"), BUDGETED)
placements = pytest.mark.parametrize(("algo", "partition"), PLACEMENTS)


def budget_for(algo: str) -> int:
    """Less for clusters: in the worst case each of their tokens takes a page."""
    return TIGHT_BUDGET if algo not in CLUSTERING else 24


def fast_bytes_for(algo: str, partition: str, shape: Shape = SHAPE) -> int:
    """A fast tier that holds one step of one layer and little more."""
    settings, budget = settings_of(algo, partition), budget_for(algo)
    retrieve = algorithm_with(settings, budget).retrieve
    pages = shape.kv_heads * 3
    if retrieve is not None:
        size = min(retrieve.partition_size, settings.partition.page_tokens)
        info, cpu = shape.info, torch.device("cpu")
        plan = plan_for(settings, algorithm_with(settings, budget), info, MAX_TOKENS, cpu)
        per_row = min(-(-budget // size), plan.row_pages)
        pages = max(pages, 3 * shape.kv_heads * per_row)
    return (pages + 1) * settings.partition.page_tokens * shape.head_dim * 2 * 4


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


@pytest.mark.parametrize("retriever", ROOTED)
@pytest.mark.parametrize("evictor", EVICTORS)
def test_retrievers_that_would_lose_tokens_are_refused(retriever, evictor):
    settings = settings_of(retriever)
    evict = algorithm_with(settings_of(evictor), 80).evict
    both = replace(algorithm_with(settings, TIGHT_BUDGET), evict=evict)
    with pytest.raises(ValueError, match="algo/evict=none"):
        build_system(settings, SHAPE, algorithm=both)


@pytest.mark.parametrize("evictor", WATCHING)
def test_an_evictor_that_follows_all_attention_beside_a_retriever_is_refused(evictor):
    settings = settings_of("quest")
    evict = algorithm_with(settings_of(evictor), 80).evict
    both = replace(algorithm_with(settings, TIGHT_BUDGET), evict=evict)
    with pytest.raises(ValueError, match=r"^algo=quest: [^\n]*algo/retrieve=none[^\n]*$"):
        build_system(settings, SHAPE, algorithm=both)


@pytest.mark.parametrize("retriever", [name for name in RETRIEVING if name not in ROOTED])
@pytest.mark.parametrize("evictor", COMPOSED)
def test_two_roles_together_keep_the_laws(retriever, evictor):
    settings = settings_of(retriever)
    roles = algorithm_with(settings, TIGHT_BUDGET)
    evict = algorithm_with(settings_of(evictor), 80).evict
    both = replace(roles, evict=evict)
    system = converse(build_system(settings, SHAPE, algorithm=both))
    assert_within_budget(system)
    assert_evicted_tokens_are_gone(system)
    if retriever in EXACT:
        assert_answers_are_exact_over_what_was_read(system)
    assert_blind_to_batch_mates(lambda: build_system(settings, SHAPE, algorithm=both))


@pytest.mark.parametrize("evictor", COMPOSED)
def test_evicted_tokens_take_nothing_of_a_token_budget(evictor):
    settings = settings_of("oracle_topk")
    evict = algorithm_with(settings_of(evictor), 80).evict
    both = replace(algorithm_with(settings, TIGHT_BUDGET), evict=evict)
    system = converse(build_system(settings, SHAPE, algorithm=both))
    # Rows of the longest sequence: more than the budget survives each of its evictions.
    num_rich = 0
    for read in system.reads:
        taken_R = read.times_RT.sum(1)[read.seen_R > LENGTHS["long"]]
        if len(taken_R) == 0 or held_at_most(system, read.layer, "long", LENGTHS["long"]) < 80:
            continue
        num_rich += len(taken_R)
        rich = taken_R.max() if evict.pools_heads else taken_R
        assert (rich == TIGHT_BUDGET).all(), taken_R.tolist()
    assert num_rich > 0


@pytest.mark.parametrize("algo", EVICTORS)
def test_what_is_evicted_frees_its_memory(algo):
    assert_evicted_tokens_are_gone(converse(build_system(settings_of(algo), SHAPE, TIGHT_BUDGET)))


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
