"""Sequences of random KV in an engine's memory that decode together: what benchmarks time."""

from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from composed import Bench, fill

from backends.batch import Batch
from backends.paged_attention import PagedAttention
from backends.step import Step
from backends.transformers.plug import plug_in
from memory_tiers.counters import Counters

CHUNK = 1024


@dataclass
class Arm:
    """Sequences in an engine's memory that decode together."""

    model: Any
    attention: PagedAttention
    stored: int
    slots: tuple[int, ...]
    generator: torch.Generator

    def fill(self) -> None:
        """Store random keys and values."""
        for slot in self.slots:
            self.attention.memory.begin(slot)
            fill(self.attention, slot, self.stored, CHUNK, self.generator)

    @torch.inference_mode()
    def step_ms(self, num_steps: int) -> float:
        """Mean time of decode steps."""
        cache, count = plug_in(self.model), len(self.slots)
        memory = self.attention.memory
        memory.counters.current = memory.counters.decode
        start = perf_counter()
        for _ in range(num_steps):
            batch = Batch(memory.table, self.slots, (self.stored,) * count, 1)
            tokens = torch.randint(3, 4000, (1, count), generator=self.generator)
            self.model(
                input_ids=tokens,
                position_ids=torch.full((1, count), self.stored),
                past_key_values=cache,
                use_cache=True,
                kvloom_step=Step(self.attention, batch, ()),
            )
            memory.end_step()
            memory.counters.decode.steps += 1
            self.stored += 1
        return 1e3 * (perf_counter() - start) / num_steps


def make_arm(bench: Bench, attention: PagedAttention, length: int, batch: int) -> Arm:
    """A filled arm that has warmed its cache up."""
    generator = torch.Generator().manual_seed(0)
    arm = Arm(bench.model, attention, length, tuple(range(batch)), generator)
    arm.fill()
    arm.step_ms(2)
    attention.memory.counters = Counters()
    return arm
