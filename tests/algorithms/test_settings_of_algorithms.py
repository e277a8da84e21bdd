"""Settings that cannot be meant are refused in one line that names the key."""

import pytest

from sparse_algos.evict.adakv import AdaKV
from sparse_algos.evict.h2o import H2O
from sparse_algos.evict.knorm import Knorm
from sparse_algos.evict.pyramidkv import PyramidKV
from sparse_algos.evict.snapkv import SnapKV
from sparse_algos.evict.streaming import Streaming
from sparse_algos.evict.tova import Tova
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


EVICTORS = {
    "streaming": Streaming,
    "h2o": lambda **changes: H2O(**{"sinks": 0, "recent_share": 0.5} | changes),
    "tova": lambda **changes: Tova(**{"sinks": 0, "recent_tokens": 1} | changes),
    "knorm": lambda **changes: Knorm(**{"sinks": 4, "recent_tokens": 16} | changes),
    "snapkv": lambda **changes: SnapKV(**OBSERVED | changes),
    "pyramidkv": lambda **changes: PyramidKV(**OBSERVED | {"beta": 20} | changes),
    "adakv": lambda **changes: AdaKV(**OBSERVED | {"floor_share": 0.2} | changes),
}
OBSERVED = {"sinks": 0, "window_tokens": 32, "kernel_tokens": 5}
evictors = pytest.mark.parametrize("name", EVICTORS)


@evictors
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("budget_tokens", 0),
        ("budget_tokens", -1),
        ("budget_tokens", 1),
        ("budget_tokens", 1.0),
        ("budget_tokens", "abc"),
        ("sinks", -1),
        ("sinks", 0.5),
    ],
)
def test_evictors_refuse_what_no_row_can_hold(name, key, value):
    with pytest.raises(ValueError, match=rf"^algo\.evict\.{key}=[^\n]*$") as refusal:
        EVICTORS[name](**{"budget_tokens": 256, "sinks": 0} | {key: value})
    assert repr(value) in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("h2o", "recent_share", 1.0),
        ("h2o", "recent_share", -0.1),
        ("h2o", "recent_share", True),
        ("tova", "recent_tokens", -1),
        ("knorm", "recent_tokens", 0.5),
        ("snapkv", "window_tokens", 0),
        ("snapkv", "kernel_tokens", 4),
        ("snapkv", "kernel_tokens", 0),
        ("pyramidkv", "beta", 0),
        ("adakv", "floor_share", 1.5),
    ],
)
def test_other_values_of_evictors_are_refused_by_their_key(name, key, value):
    with pytest.raises(ValueError, match=rf"^algo\.evict\.{key}=[^\n]*$"):
        EVICTORS[name](**{"budget_tokens": 256, key: value})


@evictors
def test_the_least_budget_of_an_evictor_holds_what_stays_and_a_step(name):
    least = EVICTORS[name](budget_tokens=0.5, sinks=4).least_budget
    assert EVICTORS[name](budget_tokens=least, sinks=4).most_rows(1000) in (1, None, *range(20))
    with pytest.raises(ValueError, match=rf"beside it: {least} tokens; raise it"):
        EVICTORS[name](budget_tokens=least - 1, sinks=4)


@evictors
def test_a_share_is_of_the_context(name):
    evict = EVICTORS[name](budget_tokens=0.25, sinks=4)
    assert evict.most_tokens(1000) == 250
    assert evict.most_tokens(1) == evict.least_budget


def test_the_smallest_streaming_budget_works():
    assert Streaming(budget_tokens=6, sinks=4).most_rows(100) == 1
