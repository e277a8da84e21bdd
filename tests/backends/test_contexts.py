"""A context that another engine has recorded is as good as one of its own."""

from collections.abc import Sequence

import pytest
import torch

from backends.base import Request
from backends.context import Context, Tape
from tests.backends.engines import SLOTS, Engine, engine_over, pair_of, requests, tokens
from tests.laws.configs import DENSE_PREFILL, settings_of


def engine_of(algo: str, max_batch: int = SLOTS) -> Engine:
    return engine_over(pair_of("qwen3"), settings_of(algo, max_batch=max_batch), 64)


def answers_after(
    engine: Engine, wanted: Sequence[Request], contexts: dict[str, Context]
) -> dict[str, list[int]]:
    """Answers of requests whose contexts were recorded elsewhere."""
    said: dict[str, list[int]] = {request.uid: [] for request in wanted}
    for request in wanted:
        engine.backend.submit_after(request, contexts[request.uid])
        while engine.backend.busy:
            for event in engine.backend.step():
                said[event.uid].append(event.token_id)
    return said


def contexts_of(wanted: Sequence[Request]) -> dict[str, Context]:
    """What dense prefill of each request brings, without the question and the answer."""
    engine, tape, found = engine_of("dense", max_batch=1), Tape(), {}
    engine.backend.attention.tape = tape
    for request in wanted:
        engine.run([request])
        found[request.uid] = tape.take().part(0, request.num_context)
    return found


@pytest.mark.parametrize("algo", DENSE_PREFILL)
def test_answers_after_a_recorded_context_are_those_after_ones_own(algo):
    wanted = requests()
    # One at a time: requests that share a step also share how their questions are cut.
    engine, own = engine_of(algo), {}
    for request in wanted:
        own |= tokens(engine.run([request]))
    engine = engine_of(algo)
    assert answers_after(engine, wanted, contexts_of(wanted)) == own
    assert engine.backend.counters.prefill.rows == 0


def test_a_recorded_context_that_is_altered_changes_the_answers():
    wanted = requests()[1:2]
    contexts = contexts_of(wanted)
    own = answers_after(engine_of("dense"), wanted, contexts)
    (context,) = contexts.values()
    flipped = (one._replace(value_TKD=one.value_TKD.flip(0)) for one in context.layers)
    other = context._replace(layers=tuple(flipped))
    assert answers_after(engine_of("dense"), wanted, {wanted[0].uid: other}) != own


def test_a_tape_holds_every_token_once():
    (request,) = requests()[1:2]
    engine, tape = engine_of("dense", max_batch=1), Tape()
    engine.backend.attention.tape = tape
    engine.run([request])
    heard = tape.take()
    assert heard.num_tokens == request.most_tokens - 1
    assert all(torch.isfinite(one).all() for layer in heard.layers for one in layer)
