"""Traces of tiny random models, and the live runs that they are of."""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from backends.attention.reference import Reference
from harness.preflight import Plan, plan_for
from harness.settings import Settings
from harness.system import assemble
from harness.tracing import finished_trace
from memory_tiers.counters import Counters
from memory_tiers.trace import Trace
from memory_tiers.trace_recorder import TraceRecorder
from sparse_algos.base import Algorithm
from tests.backends.engines import MAX_TOKENS, SLOTS, Engine, Listener, Pair, pair_of, requests
from tests.laws.configs import settings_of
from tests.laws.system import algorithm_with

BUDGET = 64
DECODE_STEPS = 14
WINDOWED = "qwen3 with windows on some layers"


@dataclass(frozen=True)
class Live:
    """What a run counted, and the trace of it."""

    settings: Settings
    plan: Plan
    counters: Counters
    trace: Trace


def sized(settings: Settings, share: float) -> Settings:
    """The same tiers, the fastest for a share of the KV."""
    tier = settings.tier
    fast = tier.levels[0]
    level = tier.arenas[fast].model_copy(update={"size": share})
    levels = {name: tier.arenas[name] for name in tier.levels} | {fast: level}
    sized_tier = type(tier)(name=tier.name, levels=tier.levels, **levels)
    return settings.model_copy(update={"tier": sized_tier})


def live_run(
    settings: Settings,
    family: str = "qwen3",
    algorithm: Algorithm | None = None,
    dense_layers: int = 0,
) -> Live:
    """Five requests through three slots, after a warm-up that is not measured."""
    pair = pair_of(family)
    algorithm = algorithm or algorithm_with(settings, BUDGET)
    algorithm = replace(algorithm, dense_layers=dense_layers)
    plan = plan_for(settings, algorithm, pair.info, MAX_TOKENS, torch.device("cpu"))
    engine = _engine(settings, algorithm, plan, pair)
    recorder = engine.backend.attention.recorder = TraceRecorder()
    wanted = requests(max_new_tokens=DECODE_STEPS)
    engine.run([replace(wanted[2], uid="warmup")])
    engine.backend.reset_counters()
    recorder.start_measuring()
    engine.run(wanted)
    trace = finished_trace(recorder, settings, algorithm, plan, pair.info, 1000)
    return Live(settings, plan, engine.backend.counters, trace)


@lru_cache
def shared_trace() -> Trace:
    """One trace for tests that only read it."""
    return live_run(settings_of("quest", max_batch=SLOTS)).trace


def _engine(settings: Settings, algorithm: Algorithm, plan: Plan, pair: Pair) -> Engine:
    listener = Listener(pair.plugged)
    backend = assemble(settings, algorithm, plan, pair.info, listener, Reference())
    return Engine(backend, listener)
