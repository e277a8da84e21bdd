"""KV of vLLM's blocks in levels of this project: what holds it, and why that cannot be."""

from functools import partial

import psutil

from backends.vllm.hosted import Hosting
from backends.vllm.rows import Limits
from harness.build import find
from harness.preflight import Plan, check_fast_tier, frames_by_tier
from harness.settings import Settings
from harness.sizes import format_size
from harness.system import build_levels
from memory_tiers.base import KVGeometry
from memory_tiers.level import Level
from memory_tiers.page_table import PageTable
from sparse_algos.base import Algorithm


def hosting(settings: Settings, algorithm: Algorithm) -> Hosting:
    """Levels as the settings have them, fastest first."""
    return Hosting(
        refusals=partial(_refusals, settings, algorithm),
        levels=partial(_levels, settings),
        window=settings.budget.window,
    )


def _levels(settings: Settings, blocks: PageTable) -> tuple[Level, ...]:
    everything = blocks.geometry.pages_for(blocks.max_tokens)
    return build_levels(settings, blocks, frames_by_tier(settings, blocks.geometry, everything))


def _refusals(
    settings: Settings, algorithm: Algorithm, geometry: KVGeometry, limits: Limits, num_tokens: int
) -> list[str]:
    """Why the levels cannot hold the KV of all blocks, and of one step; takes nothing.

    vLLM has no account of it: it gives out blocks by what their digests take.
    """
    everything = geometry.pages_for(num_tokens)
    frames = frames_by_tier(settings, geometry, everything)
    plan = Plan(
        geometry=geometry,
        sequences=limits.num_sequences,
        max_tokens=limits.max_tokens,
        chunk_tokens=limits.step_tokens,
        last_chunk=1,
        row_pages=-(-limits.max_tokens // geometry.page_tokens),
        own_pages=0,
        request_pages=geometry.pages_for(limits.max_tokens),
        frames=frames,
    )
    reasons = [_full(settings, geometry, frames, everything)]
    try:
        check_fast_tier(settings, algorithm, plan)
        for name in settings.tier.levels:
            arena, num_bytes = settings.tier.arenas[name], frames[name] * geometry.page_bytes
            find(arena, f"tier.{name}").check(name, num_bytes, geometry.device, **arena.arguments)
    except ValueError as error:
        reasons.append(str(error))
    return [one for one in reasons if one is not None]


def _full(
    settings: Settings, geometry: KVGeometry, frames: dict[str, int], everything: int
) -> str | None:
    """Why not all blocks have room on the last level."""
    last, asked = settings.tier.levels[-1], everything * geometry.page_bytes
    blocks = f"the blocks that vLLM gives out hold {format_size(asked)} of KV"
    fewer = "give vLLM fewer of them (--num-gpu-blocks-override)"
    if frames[last] < everything:
        has = format_size(frames[last] * geometry.page_bytes)
        return f"tier.{last}.size is {has}, {blocks}; raise it to that, or {fewer}"
    if asked > (present := psutil.virtual_memory().total):
        return f"this machine has {format_size(present)} of memory, {blocks}; {fewer}"
    return None
