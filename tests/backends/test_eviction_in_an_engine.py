"""What evictors free in a real engine: at most one layer is ever full, and answers stay."""

from dataclasses import replace

import pytest
import torch

from backends.eviction import SLACK_PAGES
from backends.scheduler import Schedule
from harness.build import build_algorithm
from harness.preflight import plan_for
from tests.backends.engines import MAX_TOKENS, SLOTS, engine_over, pair_of, requests, tokens
from tests.laws.configs import options, settings_of

EVICTORS = [name for name in options("algo/evict") if name != "none"]
WINDOW, BUDGET, PAGE_BYTES = 32, 48, 2048
LAYERS, HEADS, SIZE = 3, 2, 16
evictors = pytest.mark.parametrize("name", EVICTORS)


def settings_with(name: str, prefill: str, **sizes):
    settings = settings_of(name, max_batch=1, **sizes)
    backend = settings.backend.model_copy(update={"prefill": prefill})
    return settings.model_copy(update={"backend": backend})


def long_request():
    """A context of 260 tokens, 20 of a question, an answer of 4."""
    prompt_ids = tuple(3 + number * 7 % 250 for number in range(280))
    return replace(requests()[0], prompt_ids=prompt_ids, num_context=260, max_new_tokens=4)


def most_pages(name: str, context: int, rest: int) -> int:
    """Pages after the context, by hand: budgets, and what follows or waits to be moved."""
    evict = replace(build_algorithm(settings_of(name)).evict, budget_tokens=BUDGET)
    more = SLACK_PAGES * SIZE if evict.decodes else rest
    held = [evict.most_tokens(context, layer, LAYERS) + more for layer in range(LAYERS)]
    return sum(HEADS * (-(-one // SIZE) + 1) for one in held)


@evictors
def test_at_most_one_layer_is_ever_full_when_a_prompt_is_read_layer_by_layer(name):
    said, peak, request = {}, {}, long_request()
    context = request.num_context
    layer = HEADS * -(-context // SIZE)
    for prefill in ("chunked", "layer_segmented"):
        engine = engine_over(pair_of("qwen3"), settings_with(name, prefill), BUDGET)
        said[prefill] = tokens(engine.run([request]))
        peaks = engine.backend.peak_bytes()
        peak[prefill] = peaks["hbm"] // PAGE_BYTES
        assert peaks["evictor"] > 0
        memory = engine.backend.attention.memory
        assert memory.tiers[0].num_free == memory.tiers[0].num_frames
    # The last chunk is cut layer by layer, too.
    assert LAYERS * layer - 2 * HEADS * 2 <= peak["chunked"] <= LAYERS * layer
    assert layer < peak["layer_segmented"]
    rest = request.most_tokens - context
    assert peak["layer_segmented"] <= layer + most_pages(name, context, rest) < peak["chunked"]
    assert said["chunked"] == said["layer_segmented"]


@evictors
def test_the_memory_that_preflight_asks_for_is_enough_and_less_than_all(name):
    algorithm = replace(
        build_algorithm(settings_of(name)),
        evict=replace(build_algorithm(settings_of(name)).evict, budget_tokens=BUDGET),
    )
    rest = max(one.most_tokens - one.num_context for one in requests())

    def plan_of(prefill: str, pages: int):
        settings = settings_with(name, prefill, fast_bytes=pages * PAGE_BYTES)
        info, cpu = pair_of("qwen3").info, torch.device("cpu")
        return plan_for(settings, algorithm, info, MAX_TOKENS, cpu, rest_tokens=rest)

    roomy = plan_of("layer_segmented", 10**6)
    needed, everything = roomy.request_pages, plan_of("chunked", 10**6).request_pages
    assert needed < everything == LAYERS * HEADS * -(-MAX_TOKENS // SIZE)
    assert plan_of("layer_segmented", needed).frames["hbm"] == needed
    for prefill, pages in (("layer_segmented", needed - 1), ("chunked", everything - 1)):
        with pytest.raises(ValueError, match=r"^tier\.hbm\.size=[^\n]*raise it to[^\n]*$"):
            plan_of(prefill, pages)
    settings = settings_with(name, "layer_segmented")
    engine = engine_over(pair_of("qwen3"), settings, BUDGET, fast_frames=needed)
    assert tokens(engine.run([long_request()]))
    assert engine.backend.peak_bytes()["hbm"] <= needed * PAGE_BYTES


@pytest.mark.parametrize("name", ["snapkv", "adakv", "streaming", "knorm"])
def test_a_retriever_over_what_is_left_answers_alike_with_every_kernel(name):
    said = {}
    for kernel in ("torch", "cpu-cpp"):
        settings = settings_of("quest", max_batch=SLOTS)
        role = settings_of(name).algo.evict
        arguments = {"target": role.target} | role.arguments | {"budget_tokens": 80}
        evict = type(role).model_validate({"_target_": arguments.pop("target"), **arguments})
        algo = settings.algo.model_copy(update={"evict": evict})
        engine = engine_over(
            pair_of("qwen3"), settings.model_copy(update={"algo": algo}), 80, kernel=kernel
        )
        said[kernel] = tokens(engine.run(requests()))
    assert said["torch"] == said["cpu-cpp"]


@pytest.mark.parametrize(("chunk", "last"), [(64, WINDOW), (32, 32), (40, 1), (10**4, 10**4)])
def test_the_last_chunk_of_a_context_holds_the_queries_that_are_asked(chunk, last):
    engine = engine_over(pair_of("qwen3"), settings_of("dense", max_batch=SLOTS))
    scheduler = engine.backend.scheduler
    scheduler._schedule = Schedule(
        max_batch=SLOTS, chunk_tokens=chunk, most_rows=None, preempt=False, last_chunk=last
    )
    for request in requests():
        scheduler.submit(request, torch.zeros(1))
    final: dict[str, int] = {}
    scheduler.prepare()
    for _ in range(100):
        pieces = scheduler.pieces()
        assert sum(piece.count for piece in pieces) <= chunk
        for piece in pieces:
            piece.running.stored += piece.count
            if not piece.is_question:
                final[piece.running.request.uid] = piece.count
    for running in scheduler.running:
        assert running.stored == len(running.request.prompt_ids), "it was never read to the end"
        assert final[running.request.uid] >= min(last, running.request.num_context)


def test_fewer_tokens_a_step_than_queries_that_are_asked_is_refused():
    settings = settings_of("snapkv", chunk_tokens=16)
    with pytest.raises(ValueError, match=r"^backend\.chunk_tokens=16 [^\n]*raise it to 32[^\n]*$"):
        engine_over(pair_of("qwen3"), settings, 80)
