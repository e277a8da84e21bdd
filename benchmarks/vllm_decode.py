"""Time per output token inside vLLM: the composed system against vLLM alone, interleaved.

    make vllm && .venv-vllm/bin/python benchmarks/vllm_decode.py --length 32768

Weights are random, and prompts are stored without being attended, which would take most of the
time: what a decode step costs does not hang on what keys and values say. Each round decodes the
same prompt, which is found in the prefix cache, in both engines; ratios are those of a round.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from backends.attention.cpu import Cpu
from backends.base import Request
from backends.paged_attention import PagedAttention
from backends.transformers.loading import describe_dummy
from backends.vllm.compat import stock_cpu_backend
from backends.vllm.engine import EngineSettings, VllmBackend
from backends.vllm.runtime import EngineStep
from harness.composing import composed

VOCAB = 10_000


def main() -> None:
    """Measure and print."""
    asked = arguments()
    with TemporaryDirectory() as folder:
        info = describe_dummy(asked.shape, asked.layers, "bfloat16", VOCAB)
        info.config.save_pretrained(folder)
        settings = settings_of(folder, info, asked)
        config = composed([f"algo={asked.algo}", f"algo.retrieve.budget_tokens={asked.budget}"])
        arms = {"dense": VllmBackend(settings, None), asked.algo: VllmBackend(settings, config)}
        prompt = tuple(torch.randint(0, VOCAB, (asked.length,)).tolist())
        with unattended():
            for name, arm in arms.items():
                started = perf_counter()
                decode(arm, prompt, 2)
                print(f"{name}: stored in {perf_counter() - started:.0f} s", flush=True)
        compare(arms, prompt, asked)


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=16384)
    parser.add_argument("--shape", default="wide")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--algo", default="quest")
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--block", type=int, default=128)
    return parser.parse_args()


def settings_of(folder: str, info: Any, asked: argparse.Namespace) -> EngineSettings:
    """Room for one sequence."""
    tokens = asked.length + 2 * asked.block
    token_bytes = info.num_layers * info.num_kv_heads * info.head_dim * 2 * 2
    return EngineSettings(
        path=folder,
        dtype="bfloat16",
        max_tokens=tokens,
        max_batch=1,
        chunk_tokens=2048,
        block_tokens=asked.block,
        kv_bytes=(tokens // asked.block + 2) * asked.block * token_bytes,
        prefix_caching=True,
        random_weights=True,
    )


def decode(
    arm: VllmBackend, prompt: tuple[int, ...], count: int, seconds: dict[str, float] | None = None
) -> list[float]:
    """Seconds between the tokens of an answer; what was counted before the first is forgotten."""
    request = Request(
        uid="one",
        prompt_ids=prompt,
        num_context=len(prompt),
        max_new_tokens=count,
        stop_ids=frozenset(),
    )
    arm.submit([request])
    times = []
    while arm.busy:
        times += [event.time_s for event in arm.step()]
        if len(times) == 1 and seconds is not None:
            seconds.clear()
    return [later - earlier for earlier, later in pairwise(times)]


def compare(
    arms: dict[str, VllmBackend], prompt: tuple[int, ...], asked: argparse.Namespace
) -> None:
    """Rounds, the arm that goes first alternates."""
    tpot: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, list[float]] = defaultdict(list)
    for number in range(asked.rounds + 1):
        names = list(arms) if number % 2 == 0 else list(arms)[::-1]
        for name in names:
            with watched() as seconds:
                gaps = decode(arms[name], prompt, asked.tokens, seconds)
            if number:  # the first round warms up
                tpot[name].append(median(gaps))
                for part, total in seconds.items():
                    spent[part].append(total / sum(gaps))
    ratios = [ours / dense for dense, ours in zip(tpot["dense"], tpot[asked.algo], strict=True)]
    print(
        f"{asked.shape}, {asked.layers} layers, {asked.length} tokens, budget {asked.budget}, "
        f"bfloat16, {torch.get_num_threads()} threads"
    )
    for name, values in tpot.items():
        rounds = [round(1e3 * one, 2) for one in values]
        print(f"TPOT {name}: median {1e3 * median(values):.2f} ms of {rounds}")
    print(f"ratio: median {median(ratios):.3f} of {[round(one, 3) for one in ratios]}")
    for part, values in spent.items():
        print(f"{part}: {median(values):.3f} of the time of {asked.algo}")


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """A method replaced for a while."""
    own = owner.__dict__[name]
    setattr(owner, name, make(own))
    try:
        yield
    finally:
        setattr(owner, name, own)


@contextmanager
def unattended() -> Iterator[None]:
    """Keys and values are stored, and attention answers nothing."""

    def nothing(_: Any) -> Callable[..., Any]:
        return lambda *_, output, **__: output.zero_()

    def no_chunk(_: Any) -> Callable[..., Any]:
        return lambda self, layer: lambda layer, batch, query, *more: torch.zeros_like(query)

    stock = stock_cpu_backend().get_impl_cls()
    with (
        replaced(stock, "forward", nothing),
        replaced(PagedAttention, "_chunk_attention", no_chunk),
    ):
        yield


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Seconds in our attention, and in the kernel that it calls."""
    seconds: dict[str, float] = {}

    def timed(name: str) -> Callable[[Any], Any]:
        def make(own: Any) -> Any:
            def call(*arguments: Any, **named: Any) -> Any:
                started = perf_counter()
                try:
                    return own(*arguments, **named)
                finally:
                    seconds[name] = seconds.get(name, 0.0) + perf_counter() - started

            return call

        return make

    with (
        replaced(EngineStep, "attend", timed("attention")),
        replaced(Cpu, "decode_step", timed("kernel")),
    ):
        yield seconds


if __name__ == "__main__":
    main()
