"""An engine's memory goes with its last reference."""

import gc
import weakref

import pytest

from tests.backends.engines import engine_over, pair_of, requests
from tests.laws.configs import settings_of


@pytest.mark.parametrize("algo", ["dense", "quest", "retroinfer", "snapkv"])
def test_memory_is_free_before_a_cycle_is_looked_for(algo):
    engine = engine_over(pair_of("qwen3"), settings_of(algo, max_batch=2), 64)
    engine.run(requests()[:2])
    memory = weakref.ref(engine.backend.attention.memory)
    gc.disable()
    try:
        del engine
        assert memory() is None
    finally:
        gc.enable()
