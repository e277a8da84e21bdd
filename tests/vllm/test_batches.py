"""Batches, prefix-cache hits, chunked prompts and preemption change no answer and no summary."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from backends.base import Request
from backends.vllm.hosted import HostedMemory
from backends.vllm.runtime import Runtime
from sparse_algos.index_data import Keys
from tests.vllm.engines import (
    BLOCK,
    HOSTED,
    TIGHT,
    VllmBackend,
    answers,
    engine_of,
    forget_prefixes,
    random_prompt,
    request,
    ruler_prompts,
)

# Room for all prompts, and not for all answers.
BLOCKS = 34
LENGTHS = (150, 300, 250, 90, 200, 40)
SHARED = 512
QUESTION = 24


# Of the 13 MiB of KV that the blocks hold.
FAST = "tier.hbm.size=2MiB"


@pytest.fixture(scope="module", params=[("quest",), ("arkvale",), ("quest", HOSTED, FAST)], ids=str)
def sparse(request: pytest.FixtureRequest) -> VllmBackend:
    name, *others = request.param
    overrides = (f"algo={name}", f"algo.retrieve.budget_tokens={TIGHT}", *others)
    return engine_of(*overrides, num_blocks=BLOCKS)


def keys_in(runtime: Runtime, blocks: list[int], layer: int) -> Tensor:
    """Keys that are stored in blocks, wherever these are, [K, T, D]."""
    pages_KP = runtime.layout.frames(torch.tensor([blocks]))[0]
    memory = runtime.memory
    if not isinstance(memory, HostedMemory):
        memory.enter(layer)
        return memory.pool_FPSD[pages_KP, 0].flatten(1, 2)
    fast, below = memory.levels
    pages_KP = pages_KP + memory.first_page(layer)
    fast_KP, below_KP = fast.frames(pages_KP), below.frames(pages_KP)
    here_KP = fast_KP >= 0
    assert (here_KP | (below_KP >= 0)).any()
    key_KPSD = torch.where(
        here_KP[..., None, None],
        fast.tier.pool_FPSD[fast_KP, 0],
        below.tier.pool_FPSD[below_KP, 0],
    )
    return key_KPSD.flatten(1, 2)


def wanted() -> list[Request]:
    """Eight of different lengths; two begin alike, and some have questions."""
    long, other = ruler_prompts(1024, 2)
    prompts = [random_prompt(length, seed=length) for length in LENGTHS]
    prompts += [long[:600], long[:SHARED] + other[SHARED:640]]
    asks = [0, QUESTION, 0, 0, 0, QUESTION, 0, 0]
    return [
        request(str(number), prompt, num_question, num_new=90)
        for number, (prompt, num_question) in enumerate(zip(prompts, asks, strict=True))
    ]


def running(backend: VllmBackend) -> Iterator[tuple[list[int], int]]:
    """Blocks of each request that runs, and the tokens that are in them."""
    scheduler = backend.engine.engine_core.engine_core.scheduler
    for one in scheduler.running:
        blocks = scheduler.kv_cache_manager.get_block_ids(one.request_id)[0]
        yield blocks, one.num_computed_tokens


def assert_summaries_are_rebuilt(backend: VllmBackend) -> int:
    """Those of what runs are what their keys say; how many were looked at."""
    runtime, looked = backend.runtime, 0
    retrieve = runtime.composition.algorithm.retrieve
    layout, size = runtime.layout, retrieve.partition_size
    for blocks, num_tokens in running(backend):
        count = -(-num_tokens // size)
        if retrieve.waits is not None:
            count = (num_tokens - retrieve.waits) // size
        segments_KW = layout.segments(torch.tensor([blocks]))[0]
        for layer in range(runtime.memory.geometry.num_layers):
            key_KTD = keys_in(runtime, blocks, layer)
            live_T = torch.arange(key_KTD.shape[1]) < num_tokens
            key_KPSD = key_KTD.unflatten(1, (-1, size))[:, :count]
            live_KPS = live_T.unflatten(0, (-1, size))[:count].expand(len(key_KTD), -1, -1)
            first_K = torch.zeros(len(key_KTD), dtype=torch.int64)
            expected = retrieve.build(Keys(key_KPSD, live_KPS, first_K, layer))
            runtime.summaries.enter(layer)
            for name, built in expected.items():
                pool_NCE = runtime.summaries.pool(name)
                kept = pool_NCE[segments_KW].flatten(1, 2)[:, :count]
                torch.testing.assert_close(kept, built, rtol=1e-5, atol=1e-6)
                looked += kept.shape[1]
    return looked


def test_a_request_in_a_crowded_batch_is_answered_as_alone(sparse):
    alone = {}
    for one in wanted():
        forget_prefixes(sparse)
        alone |= answers(sparse, [one])
    forget_prefixes(sparse)
    before, looked = sparse.facts(), 0
    said = {one.uid: [] for one in wanted()}
    # The one that others share a beginning with goes first.
    sparse.submit(wanted()[6:])
    for number in range(10_000):
        if number == 6:
            sparse.submit(wanted()[:6])
        for event in sparse.step():
            said[event.uid].append(event.token_id)
        if number % 5 == 0:
            looked += assert_summaries_are_rebuilt(sparse)
        if not sparse.busy:
            break
    after = sparse.facts()
    assert after["preempted"] > before["preempted"], "nobody had to wait"
    assert after["prompt_tokens_cached"] > before["prompt_tokens_cached"], "no prefix was found"
    assert looked > 1000
    assert said == alone


def test_a_prefix_found_in_the_cache_brings_its_summaries(sparse):
    prompt = ruler_prompts(1024, 1)[0]
    forget_prefixes(sparse)
    first = answers(sparse, [request("first", prompt)])["first"]
    before = sparse.facts()["prompt_tokens_cached"]
    sparse.submit([request("second", prompt)])
    again = [event.token_id for event in sparse.step()]
    cached = sparse.facts()["prompt_tokens_cached"] - before
    assert cached >= len(prompt) // BLOCK * BLOCK - BLOCK
    assert assert_summaries_are_rebuilt(sparse) > 0
    while sparse.busy:
        again += [event.token_id for event in sparse.step()]
    assert again == first


def test_rows_of_a_question_are_not_found_as_a_context(sparse):
    prompt = ruler_prompts(1024, 1)[0]
    forget_prefixes(sparse)
    answers(sparse, [request("asked", prompt, num_question=200)])
    before = sparse.facts()["prompt_tokens_cached"]
    answers(sparse, [request("dense", prompt)])
    assert sparse.facts()["prompt_tokens_cached"] == before


def test_every_layer_chose_for_rows_and_read_less_than_all(sparse):
    sparse.reset_counters()
    answers(sparse, [request("one", ruler_prompts(1024, 1)[0])])
    decode, seen = sparse.counters.decode, sparse.activation
    assert seen.is_ours
    assert set(seen.chosen) == set(range(6))
    assert min(seen.chosen.values()) == 19
    assert 0 < decode.slots_wanted < 0.2 * decode.slots_context
