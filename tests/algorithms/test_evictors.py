"""Evictors keep what their published formulas say, in a running system."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import backends.eviction
from harness.build import build_algorithm
from sparse_algos.evictor import Held
from tests.algorithms.plain_evictors import PlainSequence, highest
from tests.laws.configs import HIERARCHIES, options, settings_of
from tests.laws.laws import assert_same_answers, frames_of, tokens_read
from tests.laws.system import DENSE, Shape, System, build_system

EVICTORS = [name for name in options("algo/evict") if name != "none"]
OBSERVED = ["snapkv", "pyramidkv", "adakv"]
SHAPE = Shape(layers=2, kv_heads=2, group=2, head_dim=8)
evictors = pytest.mark.parametrize("name", EVICTORS)


def evictor(name: str, budget: int | float, **changes):
    """The option with a budget, and a window that leaves room below it."""
    evict = build_algorithm(settings_of(name)).evict
    if name in OBSERVED:
        changes = {"window_tokens": 6, "kernel_tokens": 3} | changes
    if name == "knorm":
        changes = {"recent_tokens": 5} | changes
    return replace(evict, budget_tokens=budget, **changes)


def system_with(name: str, budget: int | float, *, tier: str = "hbm", **sizes) -> System:
    algorithm = replace(DENSE, name=name, evict=evictor(name, budget))
    return build_system(settings_of(name, tier=tier, **sizes), SHAPE, algorithm=algorithm)


@evictors
@pytest.mark.parametrize(("context", "budget"), [(45, 20), (32, 0.5), (21, 20), (1, 20)])
def test_what_is_read_is_what_the_published_formula_keeps(name, context, budget):
    steps = [5, 3] + [1] * (50 if name in ("h2o", "tova") and context == 45 else 5)
    system = system_with(name, budget, page_tokens=4, chunk_tokens=16)
    system.context("one", context)
    for count in steps:
        system._append(["one"], count, dense=False)
    evict = system.attention.algorithm.evict
    read = tokens_read(system)
    for layer in range(SHAPE.layers):
        plain = PlainSequence(evict, SHAPE, "one", layer, SHAPE.layers)
        plain.context(context)
        for count in steps:
            plain.step(count)
        for query in range(context, plain.stored):
            for head in range(SHAPE.kv_heads):
                taken = set(read["one", layer][head, query].nonzero().squeeze(1).tolist())
                assert taken == plain.seen[head, query], f"layer {layer} head {head} at {query}"


def held_of(name: str, scores, live, room: int, coming: int = 0, num_heads: int = 1) -> Held:
    sees = build_algorithm(settings_of(name)).evict.sees
    live_RT = torch.tensor(live)
    return Held(
        live_RT=live_RT,
        scores_RT=torch.tensor(scores, dtype=torch.float32) if sees != "nothing" else None,
        room_R=torch.full((len(live),), room),
        coming=coming,
        num_heads=num_heads,
    )


SLOTS = 24
ODD = st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, -1.0, 1e30, -1e30, float("inf"), float("nan")])


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(ODD, min_size=SLOTS, max_size=SLOTS),
    live=st.lists(st.booleans(), min_size=SLOTS, max_size=SLOTS),
    room=st.integers(4, 20),
    coming=st.integers(1, 3),
)
@pytest.mark.parametrize("name", ["h2o", "tova", "knorm", "streaming"])
def test_ties_and_odd_scores_take_no_more_and_no_less_than_there_is_room_for(
    name, scores, live, room, coming
):
    evict = evictor(name, 26)
    kept_T = evict.keep(held_of(name, [scores], [live], room, coming))[0]
    alive = [slot for slot in range(SLOTS) if live[slot]]
    kept = kept_T.nonzero().squeeze(1).tolist()
    assert set(kept) <= set(alive), "a dead slot came back"
    assert len(kept) == min(room, len(alive))
    ends = alive[: evict.sinks]
    if name == "tova":
        ends = ends + alive[len(alive) - max(0, evict.recent_tokens - coming) :]
    assert set(ends[:room]) <= set(kept)


@pytest.mark.parametrize("name", ["h2o", "tova"])
def test_of_equal_scores_the_older_tokens_stay(name):
    evict = evictor(name, 26, **({"recent_share": 0.0} if name == "h2o" else {"recent_tokens": 0}))
    kept_T = evict.keep(held_of(name, [[1.0] * 6], [[True, False, True, True, True, True]], 3))[0]
    assert kept_T.nonzero().squeeze(1).tolist() == [0, 2, 3]
    scores = [0.1, 0.9, 0.5, 0.5, 0.7, 0.5]
    kept_T = evict.keep(held_of(name, [scores], [[True] * 6], 3))[0]
    assert kept_T.nonzero().squeeze(1).tolist() == highest(dict(enumerate(scores)), 3)


def test_adakv_gives_every_head_its_floor_and_the_layer_its_budget():
    evict = evictor("adakv", 26, floor_share=0.5)
    past = SLOTS - evict.window_tokens
    scores = [[0.0] * SLOTS, [5.0] * SLOTS]
    kept_RT = evict.keep(held_of("adakv", scores, [[True] * SLOTS] * 2, 14, num_heads=2))
    assert kept_RT.sum() == 28 and kept_RT[:, past:].all()
    assert kept_RT.sum(1).tolist() == [evict.window_tokens + 4, evict.window_tokens + 12]


def test_pyramid_budgets_fall_with_the_layer_and_average_to_the_budget():
    evict = replace(build_algorithm(settings_of("pyramidkv")).evict, budget_tokens=256)
    # (256 - 32) // 20 = 11; 2 * 224 - 11 = 437; steps of (437 - 11) // 5 = 85.
    budgets = [evict.most_tokens(4000, layer, 6) for layer in range(6)]
    assert budgets == [469, 384, 299, 214, 129, 44]
    assert [evict.most_tokens(300, layer, 2) for layer in range(2)] == [268 + 32, 180 + 32]


@pytest.mark.parametrize("name", EVICTORS)
def test_moving_tokens_together_never_changes_what_is_attended(name, monkeypatch):
    answers, read = {}, {}
    for slack in (0, 1, 1000):
        monkeypatch.setattr(backends.eviction, "SLACK_PAGES", slack)
        system = system_with(name, 24, page_tokens=4)
        system.context("one", 50)
        system.question("one", 6)
        for _ in range(14):
            system.decode("one")
        answers[slack], read[slack] = system.answers, tokens_read(system)
        if system.attention.algorithm.evict.decodes:
            used = system.attention.eviction.slots.most(0, [system.holds["one"]])[0]
            assert slack == 1 or used == {0: 24, 1000: 44}[slack], (
                "nothing moved, or nothing stayed"
            )
    for slack in (0, 1):
        assert_same_answers(answers[1000], answers[slack])
        for at, seen_KTT in read[1000].items():
            assert torch.equal(seen_KTT, read[slack][at])


@pytest.mark.parametrize("tier", ["hbm", *HIERARCHIES])
@evictors
def test_after_the_context_pages_are_those_of_the_kept_tokens(name, tier):
    fast = {"fast_bytes": 24 * 4 * 8 * 2 * 4} if tier != "hbm" else {}
    system = system_with(name, 30, tier=tier, page_tokens=4, chunk_tokens=16, **fast)
    system.context("one", 70)
    table, eviction = system.memory.table, system.attention.eviction
    rows_K = table.rows_of(torch.tensor([system.holds["one"]]))
    used_LK = eviction.slots.used_LR[:, rows_K]
    framed_P = (frames_of(system.memory) >= 0).any(0)
    per_row_LR = framed_P.view(SHAPE.layers, table.num_rows, -1).sum(2)
    assert torch.equal(per_row_LR[:, rows_K], -(-used_LK // 4))
    budgets = [eviction.evict.most_tokens(70, layer, SHAPE.layers) for layer in range(SHAPE.layers)]
    assert used_LK.double().mean(1).tolist() == budgets
    assert framed_P.sum() < SHAPE.layers * SHAPE.kv_heads * -(-70 // 4), "nothing was freed"
    if name == "adakv":
        assert (used_LK[:, 0] != used_LK[:, 1]).any(), "every head kept as many: the law is empty"
    memory = system.memory
    if tier == "hbm":
        assert framed_P.sum() == memory.tiers[0].num_frames - memory.tiers[0].num_free
