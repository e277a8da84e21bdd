"""Blocks that leave vLLM's cache for host memory come back as they were, and so do summaries."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from backends.vllm.moves import plan_moves
from backends.vllm.pages import BlockLayout
from backends.vllm.tables import BlockSummaries
from memory_tiers.base import KVGeometry
from memory_tiers.page_table import PageTable
from sparse_algos.index_data import TensorSpec
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
from tests.vllm.engines import (
    offloading as offloading_by,
)
from tests.vllm.test_batches import assert_summaries_are_rebuilt

# Room for two prompts of four, and for what is said.
BLOCKS = 40
KINDS = {
    "dense": ((), 1),
    "quest": (("algo=quest", f"algo.retrieve.budget_tokens={TIGHT}"), 1),
    "arkvale": (("algo=arkvale", f"algo.retrieve.budget_tokens={TIGHT}"), 2),
}


@contextmanager
def only_connector() -> Iterator[None]:
    """vLLM has one connector in a process, whichever engine asks for it."""
    from vllm.distributed.kv_transfer.kv_transfer_state import ensure_kv_transfer_shutdown

    ensure_kv_transfer_shutdown()
    try:
        yield
    finally:
        ensure_kv_transfer_shutdown()


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def offloading(request: pytest.FixtureRequest) -> Iterator[VllmBackend]:
    overrides, chunk_blocks = request.param
    with only_connector():
        yield engine_of(*overrides, num_blocks=BLOCKS, chunk_blocks=chunk_blocks)


class Connector(dict):
    """Words for vLLM; engines are kept by what they were asked for."""

    def __hash__(self) -> int:
        return id(self)


OTHER = Connector(
    kv_connector="ExampleConnector",
    kv_role="kv_both",
    kv_connector_extra_config={"shared_storage_path": "/nowhere"},
)


def test_more_host_memory_than_there_is_is_refused():
    asked = Connector(offloading_by(1))
    asked["kv_connector_extra_config"] |= {"cpu_bytes_to_use": 1 << 60}
    with only_connector(), pytest.raises(ValueError, match="cpu_bytes_to_use=1152921504606846976"):
        engine_of(kv_transfer=asked)


def test_connectors_that_leave_summaries_behind_are_refused():
    with only_connector(), pytest.raises(ValueError, match="brings blocks without summaries"):
        engine_of("algo=quest", kv_transfer=OTHER)
    with only_connector(), pytest.raises(ValueError, match="use tier=hbm, or no KV connector"):
        engine_of("algo=quest", HOSTED, "tier.hbm.size=2MiB", chunk_blocks=1)


def counted(backend: VllmBackend, name: str) -> float:
    """What vLLM's own metric has come to."""
    found = [one.value for one in backend.engine.get_metrics() if one.name == f"vllm:{name}"]
    assert found, name
    return sum(found)


def test_a_prefix_that_left_the_cache_comes_back_with_its_summaries(offloading):
    prompts = [*ruler_prompts(1024, 3), random_prompt(1000, seed=11)]
    first = [answers(offloading, [request(f"first {nth}", one)]) for nth, one in enumerate(prompts)]
    assert counted(offloading, "external_prefix_cache_hits") == 0
    again, looked = [], 0
    for nth, prompt in enumerate(prompts):
        tokens, uid = [], f"again {nth}"
        offloading.submit([request(uid, prompt)])
        while offloading.busy:
            tokens += [event.token_id for event in offloading.step()]
            if offloading.runtime is not None:
                looked += assert_summaries_are_rebuilt(offloading)
        again.append({f"first {nth}": tokens})
    assert again == first
    whole = sum(len(prompt) // BLOCK * BLOCK for prompt in prompts)
    assert counted(offloading, "external_prefix_cache_hits") > whole / 2
    assert counted(offloading, "kv_offload_load_bytes") > 0
    assert (looked > 0) == (offloading.runtime is not None)


def test_requests_that_run_together_are_answered_as_alone(offloading):
    prompts = [random_prompt(length, seed=length) for length in (900, 800, 700, 600, 500, 400)]
    alone = {}
    for nth, prompt in enumerate(prompts):
        alone |= answers(offloading, [request(str(nth), prompt, num_new=60)])
    before = counted(offloading, "external_prefix_cache_hits")
    wanted = [request(str(nth), prompt, num_new=60) for nth, prompt in enumerate(prompts)]
    assert answers(offloading, wanted) == alone
    assert counted(offloading, "external_prefix_cache_hits") > before


def test_rows_of_a_question_are_not_loaded_as_a_context(offloading):
    prompt = random_prompt(800, seed=21)
    answers(offloading, [request("asked", prompt, num_question=300)])
    for seed in (22, 23, 24):
        answers(offloading, [request(str(seed), random_prompt(1000, seed=seed))])
    before = counted(offloading, "external_prefix_cache_hits")
    answers(offloading, [request("dense", prompt)])
    # Of vLLM alone, those rows are dense too.
    is_found = counted(offloading, "external_prefix_cache_hits") > before
    assert is_found == (offloading.runtime is None)
    forget_prefixes(offloading)
    answers(offloading, [request("asked again", prompt, num_question=300)])
    assert counted(offloading, "external_prefix_cache_hits") > before


@pytest.mark.parametrize("by_entry", [False, True])
def test_the_bytes_of_a_block_are_its_summaries_and_no_others(by_entry):
    layout = BlockLayout(
        block_tokens=64, page_tokens=16, partition_size=8, num_kv_heads=2, head_dim=4
    )
    geometry = KVGeometry(
        num_layers=3,
        num_kv_heads=2,
        head_dim=4,
        page_tokens=16,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    spec = {"code": TensorSpec((5,), torch.float32, by_entry=by_entry)}
    summaries = BlockSummaries(spec, layout, PageTable(geometry, 1, 128, layered=False), 6, 3)
    for layer in range(3):
        summaries.enter(layer)
        summaries.pool("code").fill_(1)
    parts = summaries.by_block()
    assert [len(part) for part in parts] == [6, 6, 6]
    parts[1][4] = 0
    for layer in range(3):
        summaries.enter(layer)
        zeros = (summaries.pool("code") == 0).all(dim=2).all(dim=1).nonzero().flatten()
        of_block = layout.segments(torch.tensor([[4]])).flatten()
        assert zeros.tolist() == (of_block.tolist() if layer == 1 else [])
        assert int((summaries.pool("code") == 0).sum()) == len(zeros) * layout.segment * 5


@pytest.mark.parametrize("chunk_blocks", [1, 2, 3, 8])
def test_blocks_lie_in_chunks_in_their_order(chunk_blocks):
    from vllm.v1.kv_offload.base import GPULoadStoreSpec

    # Of three groups: amid a chunk, none, and at the begin of one.
    sizes, indices = (7, 0, 5), (4, 9, 8 * chunk_blocks)
    blocks = GPULoadStoreSpec([31, 4, 17, 2, 9, 8, 7, 1, 3, 5, 6, 10], sizes, indices)
    touched = [
        sorted({nth // chunk_blocks for nth in range(index, index + size)})
        for size, index in zip(sizes, indices, strict=True)
    ]
    count = sum(map(len, touched))
    chunk_ids_N = np.random.default_rng(0).permutation(50)[:count]
    moves = {one.group: one for one in plan_moves(blocks, chunk_ids_N, chunk_blocks)}
    assert set(moves) == {0, 2}
    first_block = first_chunk = 0
    for group, (size, index) in enumerate(zip(sizes, indices, strict=True)):
        for nth in range(size):
            chunk = chunk_ids_N[first_chunk + touched[group].index((index + nth) // chunk_blocks)]
            assert moves[group].blocks_N[nth] == blocks.block_ids[first_block + nth]
            assert moves[group].places_N[nth] == (
                chunk * chunk_blocks + (index + nth) % chunk_blocks
            )
        first_block, first_chunk = first_block + size, first_chunk + len(touched[group])
    assert all(move.places_N.dtype == torch.int64 for move in moves.values())
