"""Replays a recorded trace through the configured mapper, cache and tiers, without a model."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console

from backends.replay.cost_model import (
    SHAPES,
    HardwareProfile,
    ModelShape,
    SimulatedStep,
    shape_of,
    simulated_step,
)
from backends.replay.replayer import Replayer
from backends.replay.traffic import LayerTraffic, TrafficMeter
from harness.build import build, mapper_for
from harness.environment import environment
from harness.preflight import frames_by_tier
from harness.settings import BudgetSettings, Settings
from harness.studies.base import Study
from harness.studies.findings import keep_findings
from harness.studies.replay_table import render_replay
from harness.system import build_memory, choose_device
from memory_tiers.base import options
from memory_tiers.counters import PHASES, Counters
from memory_tiers.page_table import PageTable
from memory_tiers.trace import Trace, TraceHeader

BUDGETS = Path(__file__).resolve().parents[2] / "conf" / "budget"


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What one pass over a trace counted; layers: of decode steps, in order."""

    counters: Counters
    peak_bytes: dict[str, int]
    frames: dict[str, int]
    page_bytes: int
    page_tokens: int
    replay_s: float
    layers: Sequence[LayerTraffic]


@dataclass(frozen=True, kw_only=True)
class Replay(Study):
    """An arm for each way to share the fast tier.

    budgets: options of conf/budget; None is the one of the config. shape: a model of `SHAPES` to
    simulate step times for; None is the model of the trace.
    """

    budgets: Sequence[str] | None
    shape: str | None

    def __post_init__(self) -> None:
        """Check the settings."""
        known = sorted(path.stem for path in BUDGETS.glob("*.yaml"))
        for name in self.budgets or ():
            if name not in known:
                raise ValueError(f"study.budgets={name!r} is unknown; use {options(known)}")
        if self.shape is not None and self.shape not in SHAPES:
            raise ValueError(f"study.shape={self.shape!r} is unknown; use {options(list(SHAPES))}")

    def run(self, settings: Settings, console: Console) -> int:
        """See Study."""
        if settings.trace.path is None:
            raise ValueError("trace.path is not set; give trace.path=FILE, trace=on records one")
        trace = Trace.load(Path(settings.trace.path))
        names = self.budgets or [settings.budget.name]
        arms = {name: replay(with_budget(settings, name), trace) for name in names}
        profile = hardware_profile(settings)
        steps = {name: self._simulated(trace.header, arm, profile) for name, arm in arms.items()}
        found = self._findings(settings, trace, arms, steps)
        folder = keep_findings(
            Path(settings.results), "replay", {"replay.json": json.dumps(found, indent=1).encode()}
        )
        render_replay(found, console)
        console.print(str(folder / "replay.json"), soft_wrap=True, highlight=False, markup=False)
        return 0

    def _simulated(
        self, header: TraceHeader, arm: Replayed, profile: HardwareProfile | None
    ) -> SimulatedStep | None:
        traced = shape_of(header)
        target = traced if self.shape is None else SHAPES[self.shape]
        if profile is None or not arm.layers:
            return None
        return simulated_step(arm.layers, profile, traced, target)

    def _target(self, header: TraceHeader) -> ModelShape:
        return shape_of(header) if self.shape is None else SHAPES[self.shape]

    def _findings(
        self,
        settings: Settings,
        trace: Trace,
        arms: dict[str, Replayed],
        steps: dict[str, SimulatedStep | None],
    ) -> dict[str, Any]:
        header = asdict(trace.header)
        return {
            "kind": "replay",
            "trace": {key: header[key] for key in header if key not in ("config", "requests")},
            "num_requests": len(trace.header.requests),
            "num_calls": trace.num_calls,
            "system": {
                "tier": settings.tier.name,
                "cache": settings.cache.name,
                "partition": settings.partition.name,
                "hardware": settings.hardware.name,
            },
            "arms": {name: counted(arm) for name, arm in arms.items()},
            "step_times": {
                name: {"simulated": True, "shape": self._target(trace.header).name, **asdict(step)}
                for name, step in steps.items()
                if step is not None
            },
            "hardware": {"simulated": True, **settings.hardware.model_dump(mode="json")},
            "settings": settings.model_dump(mode="json"),
            "environment": environment().model_dump(mode="json"),
        }


def replay(settings: Settings, trace: Trace) -> Replayed:
    """Drive a real cache manager over a trace; raises ValueError where it does not fit."""
    header = trace.header
    device = choose_device(settings.backend.device)
    geometry = header.geometry(settings.partition.page_tokens, device)
    everything = header.sequences * geometry.pages_for(header.max_tokens)
    frames = frames_by_tier(settings, geometry, everything)
    table = PageTable(geometry, header.sequences, header.max_tokens)
    mapper = mapper_for(settings, header.algorithm, header.partition_kind, header.partition_size)
    memory = build_memory(settings, table, frames)
    prefetch = settings.backend.prefetch and len(memory.levels) > 1
    meter = TrafficMeter(Replayer(header, memory, mapper, prefetch=prefetch), memory)
    started = perf_counter()
    with torch.inference_mode():
        trace.play(meter)
    return Replayed(
        counters=memory.counters,
        peak_bytes={tier.name: tier.peak_bytes for tier in memory.tiers},
        frames=frames,
        page_bytes=geometry.page_bytes,
        page_tokens=geometry.page_tokens,
        replay_s=perf_counter() - started,
        layers=[one for one in meter.layers if one.step >= header.measured_from],
    )


def with_budget(settings: Settings, name: str) -> Settings:
    """The settings with another option of conf/budget."""
    if name == settings.budget.name:
        return settings
    found = OmegaConf.to_container(OmegaConf.load(BUDGETS / f"{name}.yaml"))
    return settings.model_copy(update={"budget": BudgetSettings.model_validate(found)})


def hardware_profile(settings: Settings) -> HardwareProfile | None:
    """The machine whose step times are simulated; None where nothing is modelled."""
    profile = settings.hardware.profile
    if profile is None:
        return None
    built: HardwareProfile = build(profile, "hardware.profile")
    return built


def counted(arm: Replayed) -> dict[str, Any]:
    """The counts of an arm as JSON; null where nothing was asked for."""
    decode, layers = arm.counters.decode, arm.layers
    steps = len({one.step for one in layers})
    asked, wanted = decode.pages_wanted, decode.slots_wanted
    return {
        "decode_steps": steps,
        "hit_rate": decode.pages_hit / asked if asked else None,
        "read_amplification": decode.pages_read * arm.page_tokens / wanted if wanted else None,
        "frames": arm.frames,
        "page_bytes": arm.page_bytes,
        "peak_bytes": arm.peak_bytes,
        "replay_s": arm.replay_s,
        "counters": {
            phase: {**vars(count), "bytes_moved": dict(count.bytes_moved)}
            for phase in PHASES
            for count in (getattr(arm.counters, phase),)
        },
    }
