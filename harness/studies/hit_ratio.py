"""How often each cache policy finds a page, against how many pages it may keep beside a step's."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console

from backends.replay.cache_sim import simulate
from backends.replay.decode_pages import DecodeTrace, decode_trace
from harness.build import build, mapper_for
from harness.environment import environment
from harness.progress import progress
from harness.settings import CacheSettings, Settings
from harness.studies.base import Study
from harness.studies.findings import keep_findings
from harness.studies.hit_ratio_picture import draw
from harness.studies.hit_ratio_table import render_hit_ratios
from harness.studies.record_trace import cached_trace
from memory_tiers.base import EvictionPolicy
from memory_tiers.policies.belady import Belady
from memory_tiers.trace import Trace

CACHES = Path(__file__).resolve().parents[2] / "conf" / "cache"
BOUND = "belady"
POINT = 0.01
RULES = {
    "frames": "the most pages one step reads, over all layers and sequences, times (1 + ratio)",
    "hit": "a page that neither the read nor the append before it had to load",
    "cold start": "the fast tier is empty when a sequence starts to decode; its first step, where "
    "nothing can be found, is not counted",
    "knee": "the first ratio whose hit ratio is within 1 point of the largest of the policy",
}


@dataclass(frozen=True, kw_only=True)
class HitRatio(Study):
    """Every policy of conf/cache, and Belady as their bound, on the pages of one trace.

    trace: a file, or None for one that is recorded with the settings of the run and kept in
    `traces`; ratios: of buffering to mandatory pages.
    """

    trace: str | None
    traces: str
    ratios: Sequence[float]

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.ratios or min(self.ratios) < 0 or sorted(set(self.ratios)) != [*self.ratios]:
            raise ValueError(
                f"study.ratios={list(self.ratios)} must be ascending and not below 0; "
                "use [0, 1, 2, 4, 8]"
            )

    def run(self, settings: Settings, console: Console) -> int:
        """See Study."""
        if self.trace is None:
            trace = cached_trace(settings, Path(self.traces), console)
        else:
            trace = Trace.load(Path(self.trace))
        found = self._findings(settings, trace, console)
        files = {"hit_ratio.json": json.dumps(found, indent=1).encode()}
        pictures = draw(found)
        if not pictures:
            console.print(
                "no picture: matplotlib is not installed; pip install 'kvloom[report]'",
                markup=False,
            )
        folder = keep_findings(Path(settings.results), "hit_ratio", files | pictures)
        render_hit_ratios(found, console)
        for name in (*pictures, "hit_ratio.json"):
            console.print(str(folder / name), soft_wrap=True, highlight=False, markup=False)
        return 0

    def _findings(self, settings: Settings, trace: Trace, console: Console) -> dict[str, Any]:
        decoding = pages_of(settings, trace)
        frames = [round(decoding.mandatory * (1 + ratio)) for ratio in self.ratios]
        policies = policies_of(decoding)
        with progress(total=len(policies), unit="policies", console=console) as advance:
            curves = {}
            for name, policy in policies.items():
                curves[name] = [hit_ratio(decoding, policy, count) for count in frames]
                advance(name)
        header = asdict(trace.header)
        return {
            "kind": "hit_ratio",
            "simulated": True,
            "rules": RULES,
            "trace": {key: header[key] for key in header if key != "config"},
            "steps": decoding.steps,
            "mandatory_pages": decoding.mandatory,
            "pages_wanted": decoding.pages_wanted - decoding.cold_wanted,
            "ratios": list(self.ratios),
            "frames": frames,
            "hit_ratio": curves,
            "knee": {name: knee(self.ratios, curve) for name, curve in curves.items()},
            "environment": environment().model_dump(mode="json"),
        }


def pages_of(settings: Settings, trace: Trace) -> DecodeTrace:
    """The decode steps of a trace, on the pages and mapper of the settings."""
    header = trace.header
    mapper = mapper_for(settings, header.algorithm, header.partition_kind, header.partition_size)
    geometry = header.geometry(settings.partition.page_tokens, torch.device("cpu"))
    return decode_trace(trace, mapper, geometry)


def policies_of(decoding: DecodeTrace) -> dict[str, EvictionPolicy]:
    """The bound, then each option of conf/cache, by name."""
    policies: dict[str, EvictionPolicy] = {BOUND: Belady(decoding.pages.touched())}
    for path in sorted(CACHES.glob("*.yaml")):
        cache = CacheSettings.model_validate(OmegaConf.to_container(OmegaConf.load(path)))
        policies[cache.name] = build(cache.policy, "cache.policy")
    return policies


def hit_ratio(decoding: DecodeTrace, policy: EvictionPolicy, num_frames: int) -> float:
    """What a policy finds in so many frames, as `DecodeTrace.hit_ratio` counts it."""
    counts = simulate(decoding.pages, policy, num_frames)
    return decoding.hit_ratio(counts.pages_loaded)


def knee(ratios: Sequence[float], curve: Sequence[float]) -> float:
    """See RULES."""
    return next(
        ratio for ratio, value in zip(ratios, curve, strict=True) if value >= max(curve) - POINT
    )
