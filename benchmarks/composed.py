"""Engines for benchmarks, composed from `conf/` like any other."""

from dataclasses import dataclass
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from backends.attention.select import choose_kernel
from backends.batch import Batch
from backends.paged_attention import PagedAttention
from backends.transformers.engine import TransformersBackend
from backends.transformers.loading import ModelInfo
from harness.preflight import Plan, plan_for
from harness.prepared import DENSE
from harness.settings import Settings, validated
from harness.system import ROOT, assemble, choose_device, describe, load
from sparse_algos.base import Algorithm


@dataclass(frozen=True)
class Bench:
    """A loaded model, and sizes for sequences of one length."""

    settings: Settings
    info: ModelInfo
    model: Any
    plan: Plan

    def engine(self, algorithm: Algorithm = DENSE) -> TransformersBackend:
        """An engine of its own memory."""
        geometry = self.plan.geometry
        kernel = choose_kernel(
            self.settings.backend.kernel,
            device=geometry.device,
            dtype=geometry.dtype,
            head_dim=geometry.head_dim,
            page_size=geometry.page_tokens,
        )
        return assemble(self.settings, algorithm, self.plan, self.info, self.model, kernel)


def make_settings(overrides: list[str]) -> Settings:
    """What a command line with these overrides would run."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("run", overrides), resolve=True)
    assert isinstance(config, dict)
    return validated({str(key): value for key, value in config.items()})


def make_bench(overrides: list[str], max_tokens: int) -> Bench:
    """Compose, load, and size the memory."""
    settings = make_settings(overrides)
    device = choose_device(settings.backend.device)
    info = describe(settings, vocab_size=4096)
    plan = plan_for(settings, DENSE, info, max_tokens, device)
    return Bench(settings, info, load(settings, info, device), plan)


def fill(
    attention: PagedAttention, slot: int, length: int, chunk: int, generator: torch.Generator
) -> None:
    """Store random keys and values of one sequence, through the engine's own pages."""
    geometry = attention.memory.geometry
    shape = (chunk, geometry.num_kv_heads, geometry.head_dim)
    for start in range(0, length, chunk):
        new = min(chunk, length - start)
        batch = Batch(attention.memory.table, (slot,), (start,), new)
        for layer in range(geometry.num_layers):
            query, key, value = (
                torch.randn(shape, generator=generator)[:new].to(geometry.dtype) for _ in range(3)
            )
            attention.store(layer, batch, query, key, value)
