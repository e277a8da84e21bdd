"""Decode steps of an algorithm against our dense over memory hierarchies, on a random model.

The context's keys and values are random and written through the engine's own pages, since a
prefill of this size would take minutes: what is read and moved is real, but which pages are
selected, and how often again, is not that of a trained model. Each timed step is a whole forward
pass of the batch, with a new random token, appended.

python benchmarks/tiers.py --shape 1b --length 32768 --batches 1 4
"""

import argparse
import gc
from pathlib import Path
from typing import Any

import torch
from arms import CHUNK, Arm, make_arm
from composed import make_bench
from rich.console import Console
from rounds import interleave, save, show

from harness.build import build_algorithm

HIERARCHIES = {
    "hbm": ["tier=hbm"],
    "hbm+cpu, HBM 1/8": ["tier=hbm+cpu", "tier.hbm.size=0.125"],
    "hbm+cpu+disk, HBM 1/8, host 1/4": [
        "tier=hbm+cpu+disk", "tier.hbm.size=0.125", "tier.cpu.size=0.25",
    ],
}  # fmt: skip


def facts_of(arm: Arm) -> dict[str, Any]:
    """What moved in decode, per step."""
    decode = arm.attention.memory.counters.decode
    return {
        "steps": decode.steps,
        "kv_read_bytes_per_step": decode.bytes_read / decode.steps,
        "hit_rate": decode.pages_hit / max(1, decode.pages_wanted),
        "bytes_moved_per_step": {
            pair: moved / decode.steps for pair, moved in decode.bytes_moved.items()
        },
        "exposed_ms_per_step": 1e3 * decode.exposed_s / decode.steps,
        "peak_bytes": {tier.name: tier.peak_bytes for tier in arm.attention.memory.tiers},
    }


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=32768)
    parser.add_argument("--algo", default="quest")
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--shape", default="1b")
    parser.add_argument("--layers", type=int, default=None, help="fewer than the shape has")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tiers", nargs="+", default=list(HIERARCHIES), choices=HIERARCHIES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="decode steps in a round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/tiers.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, facts = {}, {}
    for batch in arguments.batches:
        for tier in arguments.tiers:
            setting = f"batch {batch}, {tier}"
            rows[setting], facts[setting] = measure(arguments, batch, HIERARCHIES[tier])
            show(setting, {setting: rows[setting]}, Console())
            gc.collect()
    title = f"Decode step, {arguments.algo} {arguments.budget} against dense (ratio to dense)"
    show(title, rows, Console())
    save(arguments.out, title, rows, decode=facts, length=arguments.length,
         shape=arguments.shape, dtype=arguments.dtype, context="random KV")  # fmt: skip


def measure(
    arguments: argparse.Namespace, batch: int, tier: list[str]
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Interleaved rounds of both arms in one hierarchy."""
    bench = make_bench(
        [
            f"algo={arguments.algo}",
            f"algo.retrieve.budget_tokens={arguments.budget}",
            "model=dummy",
            f"model.shape={arguments.shape}",
            f"model.dtype={arguments.dtype}",
            f"model.num_layers={arguments.layers or 'null'}",
            "load=batch",
            f"backend.max_batch={batch}",
            f"backend.chunk_tokens={CHUNK}",
            *tier,
        ],
        arguments.length + (arguments.rounds + 2) * arguments.steps + 2,
    )
    arms = {
        "kvloom dense": make_arm(bench, bench.engine().attention, arguments.length, batch),
        arguments.algo: make_arm(
            bench, bench.engine(build_algorithm(bench.settings)).attention, arguments.length, batch
        ),
    }
    times = interleave(
        {name: lambda a=arm: a.step_ms(arguments.steps) for name, arm in arms.items()},
        arguments.rounds,
    )
    return times, {name: facts_of(arm) for name, arm in arms.items()}


if __name__ == "__main__":
    main()
