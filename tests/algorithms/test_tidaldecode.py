"""TidalDecode: layers between read what the last selecting layer attends to most."""

import math
from dataclasses import replace

import pytest
import torch

from backends.batch import Batch
from harness.preflight import plan_for
from sparse_algos.retrieve.tidaldecode import TidalDecode
from tests.algorithms.inputs import shape_of
from tests.algorithms.plain_reads import (
    SHAPE,
    STREAMS,
    TIGHT,
    assert_reads_follow,
    conversation,
    dot,
)
from tests.laws.configs import settings_of
from tests.laws.laws import tokens_read
from tests.laws.system import algorithm_with, build_system


def tidal(**changes) -> TidalDecode:
    plain = {"budget_tokens": 12, "sinks": 2, "recents": 3, "group_reduce": "mass"}
    return TidalDecode(**plain | {"selecting_layers": (2, 4)} | changes)


def exact(stream, layer, head, position, tokens):
    (token,) = tokens
    queries = stream.query[layer, position].unflatten(0, (SHAPE.kv_heads, -1))[head].tolist()
    key = stream.key[layer, token, head].tolist()
    return [dot(query, key) / math.sqrt(SHAPE.head_dim) for query in queries]


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_layer_reads_the_tokens_of_largest_attention_in_the_layer_that_selects(
    stream, monkeypatch
):
    system = conversation("tidaldecode", stream, monkeypatch)
    assert_reads_follow(system, stream, 1, exact, scored_layer=0)
    with pytest.raises(AssertionError):
        assert_reads_follow(system, stream, 1, exact, scored_layer=1)


def test_layers_that_select_read_everything(monkeypatch):
    system = conversation("tidaldecode", STREAMS["random"], monkeypatch)
    for (uid, layer), seen_KTT in tokens_read(system).items():
        past_TT = torch.ones_like(seen_KTT[0]).tril()
        rows_T = seen_KTT.any(dim=2).all(dim=0)
        assert rows_T.any()
        everything = bool((seen_KTT[:, rows_T] == past_TT[rows_T]).all())
        assert everything == (layer != 1 or uid == "short")


def test_only_layers_that_select_keep_keys():
    system = build_system(settings_of("tidaldecode"), SHAPE, TIGHT)
    system.context("long", 100)
    store, rows = system.attention.index.store, system.memory.table.num_rows
    held = (store._directory_RW >= 0).any(dim=1).view(SHAPE.layers, rows).any(dim=1)
    assert held.tolist() == [True, False, True]


def test_batches_of_one_step_keep_their_selections_apart():
    def run(together: bool):
        system = build_system(settings_of("tidaldecode"), SHAPE, TIGHT)
        system.context("long", 100)
        system.context("short", 80)
        attention, table = system.attention, system.memory.table
        slots = {uid: system.holds[uid] for uid in ("long", "short")}
        batches = {
            "long": Batch(table, (slots["long"],), (100,), 1),
            "short": Batch(table, (slots["short"],), (80,), 4),
        }
        order = [(layer, uid) for layer in range(SHAPE.layers) for uid in batches]
        if not together:
            order.sort(key=lambda one: one[1])
        found = {}
        for layer, uid in order:
            parts = [one.unsqueeze(0) for one in system._brought(uid, layer, batches[uid].new)]
            found[uid, layer] = attention.sparse(layer, batches[uid], *parts, SHAPE.scale)
        return found

    one, other = run(together=True), run(together=False)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("layers", [(), (4, 2), (2, 2), (-1,), (1.5,), ("2",)])
def test_layers_that_make_no_sense_are_refused(layers):
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.selecting_layers=[^\n]*$"):
        tidal(selecting_layers=layers)


@pytest.mark.parametrize("layers", [(3,), (1, 7), (2,), (1, 2)])
def test_layers_that_a_model_does_not_have_or_need_are_refused(layers):
    with pytest.raises(ValueError, match=r"^algo\.retrieve\.selecting_layers=[^\n]*0 to 2[^\n]*$"):
        tidal(selecting_layers=layers).fitted(shape_of(layers=3))


def test_a_layer_that_nobody_selects_for_is_refused():
    settings = settings_of("tidaldecode")
    algorithm = replace(algorithm_with(settings, TIGHT), dense_layers=1)
    with pytest.raises(ValueError, match=r"layer 1 reads what [^\n]*lower algo\.dense_layers"):
        plan_for(settings, algorithm, SHAPE.info, 100, torch.device("cpu"))
