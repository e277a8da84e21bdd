"""What is told of each request is what was counted over all of them."""

from collections.abc import Sequence

import pytest

from backends.base import KVRead, Request
from harness.trial import drive
from tests.backends.engines import FAMILIES, SLOTS, Engine, engine_over, pair_of, requests
from tests.laws.configs import settings_of


def reads(engine: Engine, wanted: Sequence[Request]) -> dict[str, KVRead]:
    heard = drive(engine.backend, wanted)
    assert engine.backend.take_reads() == {}
    return {uid: one.read for uid, one in heard.items() if one.read is not None}


def engine_of(algo: str, family: str, slots: int, kernel: str = "torch") -> Engine:
    settings = settings_of(algo, max_batch=slots)
    return engine_over(pair_of(family), settings, 64 if algo != "dense" else None, kernel=kernel)


@pytest.mark.parametrize("slots", [1, SLOTS])
@pytest.mark.parametrize("family", FAMILIES)
def test_dense_reads_what_dense_attention_reads(family: str, slots: int) -> None:
    found = reads(engine_of("dense", family, slots), requests())
    assert found.keys() == {request.uid for request in requests()}
    for read in found.values():
        assert read.pages == read.dense_pages > 0


@pytest.mark.parametrize("algo", ["quest", "streaming", "retroinfer"])
def test_the_pages_of_requests_add_up_to_those_that_were_counted(algo: str) -> None:
    engine = engine_of(algo, "qwen3", SLOTS)
    found = reads(engine, requests())
    assert sum(read.pages for read in found.values()) == engine.backend.counters.decode.pages_read
    longest = found["1"]
    assert 0 < longest.pages < longest.dense_pages


@pytest.mark.parametrize("kernel", ["torch", "auto"])
def test_a_request_reads_the_same_alone_and_in_company(kernel: str) -> None:
    alone = reads(engine_of("quest", "qwen3", 1, kernel), requests())
    company = reads(engine_of("quest", "qwen3", SLOTS, kernel), requests())
    assert alone == company
    assert len({read.pages for read in alone.values()}) > 1


def test_an_answer_of_one_token_takes_no_decode_step() -> None:
    found = reads(engine_of("dense", "qwen3", SLOTS), requests(max_new_tokens=1))
    assert set(found.values()) == {KVRead(0, 0)}
