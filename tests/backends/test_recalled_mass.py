"""On what the bundled model brings to attention: the oracle bounds every retriever, random none."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch

from backends.batch import Batch
from backends.context import Context, Tape
from backends.probe import Probe
from harness.cell import DENSE, Prepared, prepare
from harness.composing import composed
from harness.settings import validated
from harness.studies.algorithm_arms import arm_of
from harness.system import assemble, load
from tests.laws.configs import RETRIEVERS

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


@lru_cache
def recalled(name: str, sinks: int | None = None) -> torch.Tensor:
    """Mass that each kv head read, mean over its queries: [steps, L, K]; NaN where all is read."""
    bench = prepared()
    settings = validated(composed(["algo=dense", f"algo/retrieve={name}", *WORDS]))
    arm = arm_of(settings, settings.algo, BUDGET, bench.info)
    assert arm.algorithm is not None and arm.algorithm.retrieve is not None, arm.refused
    algorithm = arm.algorithm
    if sinks is not None:
        algorithm = replace(algorithm, retrieve=replace(algorithm.retrieve, sinks=sinks, recents=1))
    engine = assemble(settings, algorithm, bench.plan, bench.info, _NoModel(), bench.kernel)
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
    assert attention.index is not None
    reads_all = [attention.index.reads_all(layer) for layer in range(bench.info.num_layers)]
    return recalled_NLK.masked_fill(torch.tensor(reads_all).view(1, -1, 1), torch.nan)


class _NoModel:
    class config:
        num_hidden_layers = 0

    def set_attn_implementation(self, name: str) -> None: ...


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


@pytest.mark.parametrize("name", RETRIEVERS)
def test_the_oracle_recalls_most_and_random_least(name):
    mass, bound = recalled(name), recalled("oracle_topk", sinks=0)
    sparse = ~mass.isnan()
    assert sparse.any()
    assert (mass[sparse] < 0.999).any(), "everything was read: nothing is compared"
    assert (mass[sparse] <= bound[sparse] + SLACK).all()
    assert mass[sparse].mean() >= recalled("random")[sparse].mean()
