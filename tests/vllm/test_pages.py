"""Blocks of ours hold the keys and values that vLLM's hold."""

import torch

from backends.vllm.pages import Unpacked, unpack_vec
from tests.vllm.engines import FULL, VllmBackend, engine_of, random_prompt, request

LENGTH = 200


def stored(backend: VllmBackend, layer: int, unpack) -> Unpacked:
    """Keys and values of the one request that runs, token by token, [K, T, D]."""
    scheduler = backend.engine.engine_core.engine_core.scheduler
    (one,) = scheduler.running
    blocks = torch.tensor(scheduler.kv_cache_manager.get_block_ids(one.request_id)[0])
    layers = backend.engine.vllm_config.compilation_config.static_forward_context
    found = unpack(layers[f"model.layers.{layer}.self_attn.attn"].kv_cache)
    return Unpacked(*(each[blocks].transpose(0, 1).flatten(1, 2)[:, :LENGTH] for each in found))


def test_keys_and_values_are_those_of_vllm_after_unpacking():
    dense, full = engine_of(), engine_of("algo=quest", f"algo.retrieve.budget_tokens={FULL}")
    for backend in (dense, full):
        backend.submit([request("one", random_prompt(LENGTH, seed=5))])
        backend.step()
    for layer in (0, 5):
        theirs = stored(dense, layer, unpack_vec)
        ours = stored(full, layer, full.runtime.layout.unpack)
        for one, other in zip(ours, theirs, strict=True):
            assert one.std() > 0
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for backend in (dense, full):
        while backend.busy:
            backend.step()
