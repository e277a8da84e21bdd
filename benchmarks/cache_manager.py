"""Cost of the cache manager per layer, beside the attention over the same pages.

From selected page ids to pages in frames (plan, write back, load, policy, working sets), in a cache
with hits and misses as asked; contents are copied for real. The baseline is the kernel's attention.

python benchmarks/cache_manager.py --batches 1 8 --hits 1.0 0.95 0.8
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from composed import make_settings
from rich.console import Console
from rounds import interleave, save, show
from torch import Tensor

from backends.attention.base import FrameSelection
from backends.attention.select import choose_kernel
from harness.system import build_memory
from memory_tiers.base import KVGeometry
from memory_tiers.manager import CacheManager
from memory_tiers.page_table import PageTable

KV_HEADS, HEAD_DIM, GROUP, PAGE_TOKENS = 8, 128, 4, 16
BUFFERING = 4


@dataclass
class Scene:
    """A manager whose fast tier holds `1 + BUFFERING` times the pages of a step."""

    memory: CacheManager
    rows: int
    pages_per_step: int
    stored_N: Tensor
    generator: torch.Generator

    def wanted(self, hit_rate: float) -> Tensor:
        """Pages of one step, so many of them resident, in the order of rows."""
        resident = self.memory.frames(self.stored_N) >= 0
        num_hits = round(hit_rate * self.pages_per_step)
        parts = [
            self._some(self.stored_N[resident], num_hits),
            self._some(self.stored_N[~resident], self.pages_per_step - num_hits),
        ]
        return torch.cat(parts).sort().values

    def _some(self, pages_N: Tensor, count: int) -> Tensor:
        return pages_N[torch.randperm(len(pages_N), generator=self.generator)[:count]]


def make_scene(batch: int, length: int, budget: int, overrides: list[str]) -> Scene:
    """Sequences of random content, written through the manager."""
    geometry = KVGeometry(
        num_layers=1,
        num_kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        page_tokens=PAGE_TOKENS,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )
    rows, pages = batch * KV_HEADS, -(-length // PAGE_TOKENS)
    per_step = rows * budget // PAGE_TOKENS
    frames = {"hbm": (1 + BUFFERING) * per_step, "cpu": rows * pages}
    settings = make_settings(["tier=hbm+cpu", *overrides])
    memory = build_memory(settings, PageTable(geometry, batch, length), frames)
    first_R = memory.table.first_page(0, torch.arange(rows))
    stored_N = (first_R.unsqueeze(1) + torch.arange(pages)).flatten()
    for slot in range(batch):
        memory.begin(slot)
    for part_N in stored_N.split(per_step):
        content_ND = torch.randn(len(part_N), HEAD_DIM).to(geometry.dtype)
        memory.write(part_N, torch.zeros_like(part_N), content_ND, content_ND, shared=False)
    memory.pool_FPSD.nan_to_num_(0, 0, 0)
    # Every page leaves once, so that later evictions find it written back, as decoding does.
    for part_N in stored_N.split(per_step):
        memory.fetch(part_N)
    return Scene(memory, rows, per_step, stored_N, torch.Generator().manual_seed(0))


def compare(scene: Scene, hit_rate: float, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of attention and of the manager, over pages that change each time."""
    memory, rows = scene.memory, scene.rows
    kernel = choose_kernel(
        "auto", device="cpu", dtype=torch.bfloat16, head_dim=HEAD_DIM, page_size=PAGE_TOKENS
    )
    query_RGD = torch.randn(rows, GROUP, HEAD_DIM).to(torch.bfloat16)
    live_N = torch.full((scene.pages_per_step,), (1 << PAGE_TOKENS) - 1)
    indptr_R1 = torch.arange(rows + 1) * (scene.pages_per_step // rows)
    ready = {"frames": memory.fetch(scene.wanted(hit_rate), mandatory=True).frames_N}

    def manage() -> float:
        wanted_N = scene.wanted(hit_rate)
        start = perf_counter()
        ready["frames"] = memory.fetch(wanted_N, mandatory=True).frames_N
        elapsed = 1e3 * (perf_counter() - start)
        memory.end_step()
        return elapsed

    def attend() -> float:
        selection = FrameSelection(indptr_R1, ready["frames"].int(), live_N)
        start = perf_counter()
        kernel.decode(query_RGD, memory.pool_FPSD, selection, HEAD_DIM**-0.5)
        return 1e3 * (perf_counter() - start)

    return interleave({"attention": attend, "cache manager": manage}, rounds)


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=32768)
    parser.add_argument("--budget", type=int, default=2048, help="tokens per row and step")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--hits", type=float, nargs="+", default=[1.0, 0.95, 0.8])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/cache_manager.json"))
    parser.add_argument("overrides", nargs="*", help="such as cache=bucketed_lru budget=none")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = {}
    for batch in arguments.batches:
        scene = make_scene(batch, arguments.length, arguments.budget, arguments.overrides)
        for hit_rate in arguments.hits:
            setting = f"batch {batch}, {scene.pages_per_step} pages, {100 * hit_rate:g} % hits"
            rows[setting] = compare(scene, hit_rate, arguments.rounds)
    title = "One layer: cache manager beside attention (ratio to attention)"
    show(title, rows, Console())
    save(arguments.out, title, rows, length=arguments.length, budget=arguments.budget,
         overrides=arguments.overrides)  # fmt: skip


if __name__ == "__main__":
    main()
