"""TPOT of our dense decode against transformers' own `generate`: same model, same prompt, batch 1.

python benchmarks/dense_vs_generate.py --lengths 4096 16384 --rounds 6
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from composed import Bench, make_bench
from rich.console import Console
from rounds import interleave, save, show

from backends.base import Request
from backends.transformers.plug import NAME

TITLE = "TPOT, dense decode at batch 1 (ratio to generate)"


class Clock:
    """A streamer that notes when each token came."""

    def __init__(self) -> None:
        """Nothing came yet."""
        self.times_s: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """A token, or at first the prompt."""
        self.times_s.append(perf_counter())

    def end(self) -> None:
        """Generation is over."""


def tpot_ms(times_s: Sequence[float]) -> float:
    """Median gap between tokens."""
    return 1e3 * median(b - a for a, b in pairwise(times_s))


def generate_ms(bench: Bench, ids: list[int], new: int) -> float:
    """`generate` with the model's own cache and sdpa attention."""
    clock, model = Clock(), bench.model
    model.set_attn_implementation("sdpa")
    model.generate(
        torch.tensor([ids]), max_new_tokens=new, min_new_tokens=new, do_sample=False,
        eos_token_id=None, pad_token_id=0, streamer=clock,
    )  # fmt: skip
    return tpot_ms(clock.times_s[1:])


def ours_ms(bench: Bench, ids: list[int], new: int) -> float:
    """Our engine, all pages read."""
    engine = bench.engine()
    bench.model.set_attn_implementation(NAME)
    engine.submit([
        Request(uid="bench", prompt_ids=tuple(ids), num_context=len(ids), max_new_tokens=new,
                stop_ids=frozenset())
    ])  # fmt: skip
    times_s = []
    while engine.busy:
        times_s += [event.time_s for event in engine.step()]
    return tpot_ms(times_s)


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=64, help="tokens decoded in a round")
    parser.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/dense_vs_generate.json")
    )
    arguments = parser.parse_args()
    rows = {}
    for length in arguments.lengths:
        bench = make_bench(["algo=dense"], length + arguments.new)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(
            3, bench.info.config.vocab_size, (length,), generator=generator
        ).tolist()
        rows[f"{length} tokens"] = interleave(
            {
                "generate": lambda b=bench, i=ids: generate_ms(b, i, arguments.new),
                "kvloom dense": lambda b=bench, i=ids: ours_ms(b, i, arguments.new),
            },
            arguments.rounds,
        )
    show(TITLE, rows, Console())
    save(arguments.out, TITLE, rows, model=bench.info.name, new_tokens=arguments.new)


if __name__ == "__main__":
    main()
