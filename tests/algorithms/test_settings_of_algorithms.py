"""Settings that cannot be meant are refused in one line that names the key."""

import pytest

from sparse_algos.evict.streaming import Streaming
from sparse_algos.retrieve.oracle_topk import OracleTopK
from sparse_algos.retrieve.quest import Quest

BASE = {"budget_tokens": 256, "sinks": 4, "recents": 16, "group_reduce": "max"}
MAKERS = {
    "quest": lambda **changes: Quest(**BASE | {"block_tokens": 16} | changes),
    "oracle": lambda **changes: OracleTopK(**BASE | changes),
}
makers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
RETRIEVE = "algo.retrieve."


@makers
@pytest.mark.parametrize("budget", [0.5, 0.01, 48, 256, 10**9])
def test_a_budget_is_tokens_or_a_share(make, budget):
    assert make(budget_tokens=budget).most_tokens(1000) >= 1


@makers
@pytest.mark.parametrize("budget", [0, -1, "abc", 1.5, 1.0, 0.0, -0.5, True, None, float("nan")])
def test_a_budget_that_is_no_amount_is_refused(make, budget):
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.budget_tokens=[^\n]*; give [^\n]*$"):
        make(budget_tokens=budget)


@makers
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sinks", -1),
        ("sinks", 1.5),
        ("sinks", True),
        ("recents", 0),
        ("recents", "16"),
        ("group_reduce", "sum"),
        ("group_reduce", None),
    ],
)
def test_other_values_out_of_range_are_refused_by_their_key(make, key, value):
    with pytest.raises(ValueError, match=rf"^algo\.retrieve\.{key}=[^\n]*$") as refusal:
        make(**{key: value})
    assert repr(value) in str(refusal.value)


@makers
def test_a_budget_below_sinks_and_recents_is_refused_with_the_ways_out(make):
    least = make().least_budget
    make(budget_tokens=least)
    with pytest.raises(ValueError, match=rf"take up to {least} tokens; raise it") as refusal:
        make(budget_tokens=least - 1)
    assert "algo.retrieve.sinks" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("value", [0, -16, 1.5, "16", None])
def test_quest_refuses_blocks_that_hold_nothing(value):
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.block_tokens=[^\n]*$"):
        MAKERS["quest"](block_tokens=value)


@pytest.mark.parametrize(
    ("budget", "sinks", "key"),
    [
        (5, 4, "budget_tokens"),
        (0, 0, "budget_tokens"),
        (-1, 4, "budget_tokens"),
        (0.5, 4, "budget_tokens"),
        ("abc", 4, "budget_tokens"),
        (256, -1, "sinks"),
        (256, 0.5, "sinks"),
    ],
)
def test_streaming_refuses_a_budget_without_a_window(budget, sinks, key):
    with pytest.raises(ValueError, match=rf"^algo\.evict\.{key}=[^\n]*$"):
        Streaming(budget_tokens=budget, sinks=sinks)


def test_the_smallest_streaming_budget_works():
    assert Streaming(budget_tokens=6, sinks=4).most_rows == 1
