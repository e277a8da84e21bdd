"""One decode step of an algorithm against our dense, on a random model with the KV of an 8B one.

The context's keys and values are random and written through the engine's own pages, since a
prefill of this size would take minutes; the timed steps are whole forward passes.

python benchmarks/sparse_vs_dense.py --length 32768 --algo quest --budget 256
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from composed import Bench, fill, make_bench
from rich.console import Console
from rounds import interleave, save, show

from backends.batch import Batch
from backends.paged_attention import PagedAttention
from backends.step import Step
from backends.transformers.plug import plug_in
from harness.build import build_algorithm

CHUNK = 4096


def batch_at(attention: PagedAttention, stored: int, new: int) -> Batch:
    """Sequence 0 with so many tokens stored, about to append `new`."""
    return Batch(attention.memory.table, (0,), (stored,), new)


@torch.inference_mode()
def step_ms(bench: Bench, attention: PagedAttention, stored: int, num_steps: int) -> float:
    """Median time of a decode step; each one stores its token at the same place again."""
    cache = plug_in(bench.model)
    times = []
    for _ in range(num_steps):
        start = perf_counter()
        bench.model(
            input_ids=torch.tensor([[7]]),
            position_ids=torch.tensor([[stored]]),
            past_key_values=cache,
            use_cache=True,
            kvloom_step=Step(attention, batch_at(attention, stored, 1), ()),
        )
        times.append(perf_counter() - start)
    return 1e3 * median(times)


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=32768)
    parser.add_argument("--algo", default="quest")
    parser.add_argument("--budget", type=int, default=256)
    parser.add_argument("--shape", default="wide")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=8, help="decode steps in a round")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/sparse_vs_dense.json"))
    arguments = parser.parse_args()
    overrides = [
        f"algo={arguments.algo}",
        f"algo.retrieve.budget_tokens={arguments.budget}",
        "model=dummy",
        f"model.shape={arguments.shape}",
        f"model.dtype={arguments.dtype}",
    ]
    bench = make_bench(overrides, arguments.length + 1)
    dense = bench.engine().attention
    sparse = bench.engine(build_algorithm(bench.settings)).attention
    for attention in (dense, sparse):
        fill(attention, 0, arguments.length, CHUNK, torch.Generator().manual_seed(0))
    competitors = {
        "kvloom dense": lambda: step_ms(bench, dense, arguments.length, arguments.steps),
        arguments.algo: lambda: step_ms(bench, sparse, arguments.length, arguments.steps),
    }
    setting = f"{arguments.shape}, {arguments.length} tokens, budget {arguments.budget}"
    rows = {setting: interleave(competitors, arguments.rounds)}
    title = f"Decode step, {arguments.algo} against dense (ratio to dense)"
    show(title, rows, Console())
    save(arguments.out, title, rows, steps=arguments.steps, model=bench.info.name)


if __name__ == "__main__":
    main()
