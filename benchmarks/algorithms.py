"""A decode step of each retriever against our dense, where its time goes, and what its index costs.

The context's keys and values are random and written through the engine's own pages, since a
prefill of this size for every algorithm would take an hour: what is read is real, what is selected
is not that of a trained model. Trained retrievers have tensors that were fitted to this random
model (`python -m models.fit`). The time of a step is that of the path which serves (fused where
there is one). Its split is that of the same step with one call per operation, where `other` is
what the model itself takes; a pass that scores and chooses at once counts as `select`. The cost of
an index is what `store` and the first decode step spend in it, by the time of a real prefill of
the same length.

python benchmarks/algorithms.py --length 32768 --batches 1 4
"""

import argparse
import gc
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from arms import Arm, make_arm
from composed import Bench, make_bench
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rounds import interleave, ratio, save, show

from backends.base import Request
from harness.build import build_algorithm
from harness.composing import composed, options
from sparse_algos.base import Algorithm

DENSE = "kvloom dense"
OPERATIONS = ("write", "append", "score", "select", "map", "fetch", "attend", "estimate")


class Stopwatch:
    """Seconds by operation; what one spends inside another counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, whose time is kept under `name`."""

        def run(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            start = perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                spent = perf_counter() - start
                self.seconds[name] += spent - self._inner.pop()
                self._inner[-1] += spent

        return run

    @contextmanager
    def watching(self, watched: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
        """Time methods of objects: (object, method, name of the operation)."""
        kept = [dict(vars(owner)) for owner, _, _ in watched]
        for owner, method, name in watched:
            # Some owners are frozen.
            object.__setattr__(owner, method, self.timed(name, getattr(owner, method)))
        try:
            yield
        finally:
            for before, (owner, method, _) in zip(kept, watched, strict=True):
                if method in before:
                    object.__setattr__(owner, method, before[method])
                else:
                    object.__delattr__(owner, method)


def operations_of(arm: Arm) -> list[tuple[Any, str, str]]:
    """What a decode step consists of, where an index serves it: an object, its method, a name."""
    attention = arm.attention
    index, kernel = attention.index, attention.kernel
    assert index is not None
    scores = [
        (one, method, "score")
        # An index that prunes has one of its own that chooses first.
        for one in (index, vars(index).get("_base"))
        for method in ("_scores_of", "_counted", "_logits")
        if hasattr(one, method)
    ]
    return [
        *scores,
        (attention, "store", "write"),
        (index, "update", "append"),
        (index, "rebuild", "append"),
        # All that chooses, less what it spends in scores and in the mapper.
        (index, "select", "select"),
        (index._mapper, "to_pages", "map"),
        (attention.memory, "fetch", "fetch"),
        (index, "drawn", "attend"),
        (attention, "_attend", "attend"),
        (kernel, "decode", "attend"),
        (index, "estimated", "estimate"),
    ]


def no_step(*arguments: Any, **named: Any) -> None:
    """Inputs of a fused step that there are none of: each operation is a call then."""


def split_ms(arm: Arm, num_steps: int) -> dict[str, float]:
    """Milliseconds of a step by operation, one call each; `other` is the rest of the model."""
    watch, index = Stopwatch(), arm.attention.index
    # The index alone: what it asks the kernel for by itself is asked for in a served step too.
    object.__setattr__(index, "step_inputs", no_step)
    try:
        with watch.watching(operations_of(arm)):
            whole = arm.step_ms(num_steps)
    finally:
        object.__delattr__(index, "step_inputs")
    assert set(watch.seconds) <= set(OPERATIONS)
    spent = {name: 1e3 * watch.seconds[name] / num_steps for name in OPERATIONS}
    return spent | {"other": whole - sum(spent.values()), "step": whole}


def show_splits(title: str, found: dict[int, dict[str, Any]], console: Console) -> None:
    """One row per batch and algorithm: the ratio, the split in milliseconds, the index."""
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    parts = (*OPERATIONS, "other", "step")
    for column in ("batch", "algorithm", "ratio", *parts, "index"):
        table.add_column(column, justify="left" if column == "algorithm" else "right")
    for batch, by_name in found.items():
        for name, one in by_name.items():
            split = [f"{one['split_ms'][part]:.1f}" for part in parts]
            share = f"{one['index_share_of_prefill']:.1%}"
            table.add_row(str(batch), name, f"{one['ratio_to_dense']:.2f}", *split, share)
    console.print(table)


def prefill_s(bench: Bench, length: int) -> float:
    """Seconds of a real dense prefill of one prompt of random tokens."""
    engine = bench.engine()
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(3, 4000, (length,), generator=generator).tolist()
    request = Request(
        uid="prefill",
        prompt_ids=tuple(prompt),
        num_context=length,
        max_new_tokens=1,
        stop_ids=frozenset(),
    )
    start = perf_counter()
    engine.submit([request])
    while engine.busy:
        engine.step()
    return perf_counter() - start


def make_indexed_arm(bench: Bench, algorithm: Algorithm, length: int, batch: int) -> Any:
    """A filled arm, and the seconds that its index took for one sequence."""
    attention = bench.engine(algorithm.fitted(bench.info.shape)).attention
    watch, index = Stopwatch(), attention.index
    with watch.watching([(index, "update", "index"), (index, "rebuild", "index")]):
        arm = make_arm(bench, attention, length, batch)
    return arm, watch.seconds["index"] / batch


def names_of(wanted: Sequence[str] | None) -> list[str]:
    """Options of conf/algo that retrieve and do nothing else."""
    names = wanted or options("algo")
    return [name for name in names if retrieves(composed([f"algo={name}"])["algo"])]


def retrieves(algo: dict[str, Any]) -> bool:
    """Whether retrieval is the only role."""
    return bool(algo["retrieve"]) and not algo["evict"] and not algo["prefill"]


def bench_of(arguments: argparse.Namespace, name: str, batch: int) -> Bench:
    """A random model with the KV of an 8B one in few layers."""
    return make_bench(
        [
            f"algo={name}",
            f"algo.retrieve.budget_tokens={arguments.budget}",
            "algo.dense_layers=0",
            "model=dummy",
            "model.shape=wide",
            f"model.num_layers={arguments.layers}",
            f"model.dtype={arguments.dtype}",
            "load=batch",
            f"backend.max_batch={batch}",
        ],
        # The dense arm decodes beside every other one.
        arguments.length + len(options("algo")) * (arguments.rounds + 6) * arguments.steps,
    )


def measure(arguments: argparse.Namespace, batch: int, console: Console) -> dict[str, Any]:
    """Every retriever in turn beside one dense arm."""
    dense_bench = bench_of(arguments, "quest", batch)
    dense = make_arm(dense_bench, dense_bench.engine().attention, arguments.length, batch)
    found = {}
    for name in names_of(arguments.algorithms):
        try:
            found[name] = measure_one(arguments, name, batch, dense)
        except ValueError as error:
            console.print(f"{name}: {error}", markup=False)
            continue
        times = found[name]["rounds"]
        show(f"batch {batch}", {name: times}, console)
        gc.collect()
    return found


def measure_one(arguments: argparse.Namespace, name: str, batch: int, dense: Arm) -> dict[str, Any]:
    """Interleaved rounds with dense, then the split."""
    bench = bench_of(arguments, name, batch)
    algorithm = build_algorithm(bench.settings)
    arm, index_s = make_indexed_arm(bench, algorithm, arguments.length, batch)
    times = interleave(
        {DENSE: lambda: dense.step_ms(arguments.steps), name: lambda: arm.step_ms(arguments.steps)},
        arguments.rounds,
    )
    decode = arm.attention.memory.counters.decode
    retrieve, index = algorithm.retrieve, arm.attention.index
    assert retrieve is not None and index is not None
    rows = bench.info.num_layers * bench.info.num_kv_heads * batch * arguments.length
    return {
        "rounds": times,
        "ratio_to_dense": ratio(times, name, DENSE),
        "bound": retrieve.bound,
        "split_ms": split_ms(arm, arguments.steps),
        "index_s": index_s,
        "index_bytes_per_token_and_head": index.peak_bytes / rows,
        "tokens_wanted_share": decode.slots_wanted / max(1, decode.slots_context),
        "budget_tokens": retrieve.budget_tokens,
    }


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=32768)
    parser.add_argument("--algorithms", nargs="+", default=None, help="options of conf/algo")
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="decode steps in a round")
    parser.add_argument("--prefill-s", type=float, default=None, help="if it is known already")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/algorithms.json"))
    arguments = parser.parse_args()
    console = Console(width=120)
    seconds = arguments.prefill_s or prefill_s(bench_of(arguments, "quest", 1), arguments.length)
    console.print(f"prefill of {arguments.length} tokens: {seconds:.1f} s")
    found = {batch: measure(arguments, batch, console) for batch in arguments.batches}
    rows = {
        f"batch {batch}, {name}": one.pop("rounds")
        for batch, by_name in found.items()
        for name, one in by_name.items()
    }
    for by_name in found.values():
        for one in by_name.values():
            one["index_share_of_prefill"] = one["index_s"] / seconds
    title = f"Decode step at {arguments.length} tokens, budget {arguments.budget} (ratio to dense)"
    show(title, rows, console)
    show_splits("One call per operation, ms; index: share of a prefill", found, console)
    facts = {"length": arguments.length, "dtype": arguments.dtype, "context": "random KV"}
    save(arguments.out, title, rows, prefill_s=seconds, algorithms=found, **facts)


if __name__ == "__main__":
    main()
