"""On what the bundled model brings to attention: the oracle bounds every retriever, random none."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from backends.batch import Batch
from backends.context import Context, Tape
from backends.probe import Probe
from harness.cell import prepare
from harness.composing import composed
from harness.prepared import DENSE, Prepared
from harness.settings import Settings, validated
from harness.studies.algorithm_arms import arm_of
from harness.system import assemble, load
from sparse_algos.retriever import Retriever
from tests.laws.configs import RETRIEVERS
from tests.laws.system import NoModel

BUDGET = 256
WORDS = ("task.length=2048", "task.num_samples=1", "model=bundled", "load=single")
# Rounding of attention in float32.
SLACK = 1e-4


@lru_cache
def prepared() -> Prepared:
    return prepare(validated(composed(["algo=dense", *WORDS])))


@lru_cache
def brought() -> list[tuple[int, Context]]:
    """All that each request brings under dense attention, and how much of it is context."""
    bench, found = prepared(), []
    model = load(bench.settings, bench.info, bench.device)
    engine = assemble(bench.settings, DENSE, bench.plan, bench.info, model, bench.kernel)
    engine.attention.tape = tape = Tape()
    for item in bench.workload.items:
        engine.submit([item.request])
        while engine.busy:
            engine.step()
        found.append((item.request.num_context, tape.take()))
    return found


def retriever(name: str) -> Retriever:
    arm = arm_of(_settings(name), _settings(name).algo, BUDGET, prepared().info)
    assert arm.algorithm is not None and arm.algorithm.retrieve is not None, arm.refused
    return arm.algorithm.retrieve


def _settings(name: str) -> Settings:
    return validated(composed(["algo=dense", f"algo/retrieve={name}", *WORDS]))


@lru_cache
def recalled(name: str, sinks: int | None = None) -> torch.Tensor:
    """Mass that each kv head read, mean over its queries: [steps, L, K]; NaN where all is read."""
    bench = prepared()
    retrieve = retriever(name)
    if sinks is not None:
        retrieve = replace(retrieve, sinks=sinks, recents=1)
    settings, algorithm = _settings(name), replace(DENSE, retrieve=retrieve)
    engine = assemble(
        settings, algorithm, bench.plan, bench.info, NoModel(bench.info.num_layers), bench.kernel
    )
    attention, memory = engine.attention, engine.attention.memory
    steps = []
    for num_context, sequence in brought():
        attention.probe = probe = Probe(memory.table, bench.kernel, 1)
        memory.begin(0)
        _drive(attention, num_context, sequence)
        attention.release(0)
        steps.append(probe.recalled_NLH)
    recalled_NLH = torch.cat(steps)
    heads = bench.info.num_kv_heads
    recalled_NLK = recalled_NLH.unflatten(2, (heads, -1)).mean(dim=3)
    reads_all = [retrieve.reads_all(layer) for layer in range(bench.info.num_layers)]
    return recalled_NLK.masked_fill(torch.tensor(reads_all).view(1, -1, 1), torch.nan)


@torch.inference_mode()
def _drive(attention, num_context: int, sequence: Context) -> None:
    """The context at once, then every later token as a decode step."""
    memory = attention.memory
    memory.counters.enter("prefill")
    context = sequence.part(0, num_context)
    batch = Batch(memory.table, (0,), (0,), num_context, ends_context=True)
    for layer, one in enumerate(context.layers):
        attention.take(layer, batch, *one, sequence.scale)
    memory.counters.enter("decode")
    for place in range(num_context, sequence.num_tokens):
        batch = Batch(memory.table, (0,), (place,), 1)
        for layer, one in enumerate(sequence.part(place, place + 1).layers):
            attention.sparse(layer, batch, *(each.unsqueeze(0) for each in one), sequence.scale)
        memory.end_step()


# Where keys are rebuilt, the mass that was read is that of other keys.
TRUE = [name for name in RETRIEVERS if not retriever(name).rebuilds_keys]


@pytest.mark.parametrize("name", TRUE)
def test_the_oracle_recalls_most_and_random_least(name):
    mass, bound = recalled(name), recalled("oracle_topk", sinks=0)
    sparse = ~mass.isnan()
    assert sparse.any()
    assert (mass[sparse] < 0.999).any(), "everything was read: nothing is compared"
    assert (mass[sparse] <= bound[sparse] + SLACK).all()
    assert mass[sparse].mean() >= recalled("random")[sparse].mean()
