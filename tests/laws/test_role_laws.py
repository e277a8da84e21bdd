"""Laws about evictors, and about evictors with a retriever on top."""

from dataclasses import replace

import pytest

from tests.laws.configs import settings_of
from tests.laws.groups import COMPOSED, EVICTORS, EXACT, RETRIEVING, ROOTED, SHAPE, WATCHING
from tests.laws.laws import (
    LENGTHS,
    TIGHT_BUDGET,
    assert_answers_are_exact_over_what_was_read,
    assert_blind_to_batch_mates,
    assert_evicted_tokens_are_gone,
    assert_within_budget,
    converse,
    held_at_most,
)
from tests.laws.system import algorithm_with, build_system


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
