"""One layer of prefill attention: each pattern against torch's sdpa, and time against density.

8 kv heads of 128, 4 query heads each, 16384 tokens in one chunk; queries, keys and values are
synthetic (`benchmarks.prefill_case`). A pattern's time is that of choosing and attending; the arms
`random blocks` attend blocks drawn at random, and choose nothing. Interleaved rounds, one thread,
whose own CPU time counts.

python -m benchmarks.prefill
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from backends.attention.base import AttentionKernel
from backends.attention.blocks import count_pairs
from backends.attention.select import choose_kernel
from benchmarks.prefill_case import Prompt, make_prompt
from benchmarks.rounds import Competitor, interleave, ratio, save
from sparse_algos.pattern import BlockPlan, Chunk, PrefillPattern
from sparse_algos.prefill.a_shape import AShape
from sparse_algos.prefill.flexprefill import FlexPrefill
from sparse_algos.prefill.minference import MInference
from sparse_algos.prefill.xattention import XAttention

TITLE = "One layer of prefill attention, synthetic prompt"
NUM_KV_HEADS, GROUP, HEAD_DIM = 8, 4, 128
SCALE = HEAD_DIM**-0.5
BLOCK_TOKENS = 128
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
SHARES = (0.05, 0.1, 0.2, 0.5)
DENSE, OURS = "dense sdpa", "dense, the kernel"

# Settings of the papers; MInference's 6096 slash lines of 128k are scaled to the length.
PATTERNS: dict[str, PrefillPattern] = {
    "a_shape": AShape(block_tokens=BLOCK_TOKENS, dense_tokens=0, sinks=128, local_tokens=1024),
    "minference": MInference(
        block_tokens=64,
        dense_tokens=0,
        vertical=1000,
        slash=762,
        last_rows=64,
        sinks=30,
        recents=30,
    ),
    "flexprefill": FlexPrefill(
        block_tokens=BLOCK_TOKENS, dense_tokens=0, gamma=0.9, tau=0.1, least_tokens=1024
    ),
    "xattention": XAttention(block_tokens=BLOCK_TOKENS, dense_tokens=0, stride=8, threshold=0.9),
}


@dataclass(frozen=True)
class Arm:
    """A way to attend the prompt; plan: what it computes, None for everything."""

    call: Callable[[], Tensor]
    plan: Callable[[], BlockPlan] | None


def arms_of(prompt: Prompt) -> dict[str, Arm]:
    """Dense first, which the others are compared with."""
    kernel, num_tokens = _kernel(prompt), prompt.key_KTD.shape[1]
    chunk = _chunk(prompt)
    plans: dict[str, Callable[[], BlockPlan]] = {
        name: partial(pattern.plan, chunk) for name, pattern in PATTERNS.items()
    }
    plans |= {f"random blocks, {share:.0%}": _drawn(num_tokens, share) for share in SHARES}
    arms = {
        DENSE: Arm(partial(_sdpa, prompt), None),
        OURS: Arm(partial(_causal, kernel, prompt), None),
    }
    return arms | {
        name: Arm(partial(_planned, kernel, prompt, plan), plan) for name, plan in plans.items()
    }


def _sdpa(prompt: Prompt) -> Tensor:
    key_1KTD, value_1KTD = prompt.key_KTD.unsqueeze(0), prompt.value_KTD.unsqueeze(0)
    out_1HTD = torch.nn.functional.scaled_dot_product_attention(
        prompt.query_KGTD.flatten(0, 1).unsqueeze(0),
        key_1KTD,
        value_1KTD,
        is_causal=True,
        enable_gqa=True,
    )
    return out_1HTD[0].unflatten(0, (-1, GROUP))


def _kernel(prompt: Prompt) -> AttentionKernel:
    """What an engine takes here for such keys."""
    key_KTD = prompt.key_KTD
    return choose_kernel(
        "auto", device="cpu", dtype=key_KTD.dtype, head_dim=key_KTD.shape[2], page_size=16
    )


def _causal(kernel: AttentionKernel, prompt: Prompt) -> Tensor:
    query_KGTD, key_KTD, value_KTD = prompt
    return kernel.prefill_causal(query_KGTD.flatten(1, 2), key_KTD, value_KTD, SCALE).out


def _planned(kernel: AttentionKernel, prompt: Prompt, plan: Callable[[], BlockPlan]) -> Tensor:
    return kernel.prefill_blocks(plan(), _chunk(prompt), prompt.value_KTD)


def _chunk(prompt: Prompt) -> Chunk:
    return Chunk(prompt.query_KGTD, prompt.key_KTD, prompt.key_KTD.shape[1], SCALE)


def _drawn(num_tokens: int, share: float) -> Callable[[], BlockPlan]:
    """Blocks drawn at random beside the rows' own, each head its own."""
    num_blocks = num_tokens // BLOCK_TOKENS
    generator = torch.Generator().manual_seed(0)
    drawn_HIP = torch.rand(NUM_KV_HEADS * GROUP, num_blocks, num_blocks, generator=generator).tril(
        -1
    )
    eye_IP = torch.eye(num_blocks, dtype=torch.bool)
    plan = BlockPlan(BLOCK_TOKENS, (drawn_HIP > 1.0 - share) | eye_IP)
    return partial(_same, plan)


def _same(plan: BlockPlan) -> BlockPlan:
    return plan


def timed(arm: Arm) -> Competitor:
    """Milliseconds of a call."""

    def competitor() -> float:
        start = process_time()
        arm.call()
        return 1e3 * (process_time() - start)

    return competitor


def facts_of(prompt: Prompt, arms: Mapping[str, Arm]) -> dict[str, dict[str, float]]:
    """Measured density, milliseconds to choose, and the error of the first kv head's output."""
    first = Prompt(*(one[:1] for one in prompt))
    exact, facts = _sdpa(first).float(), {}
    for name, arm in arms.items():
        if arm.plan is None:
            continue
        start = process_time()
        plan = arm.plan()
        choosing = 1e3 * (process_time() - start)
        pairs = count_pairs(plan, 0, prompt.key_KTD.shape[1])
        of_first = replace(plan, blocks_HIP=plan.blocks_HIP[:GROUP])
        if plan.columns_HC is not None:
            of_first = replace(of_first, columns_HC=plan.columns_HC[:GROUP])
        out = _planned(_kernel(first), first, partial(_same, of_first))
        error = (out.float() - exact).norm() / exact.norm()
        facts[name] = {
            "density": pairs.computed / pairs.causal,
            "choosing_ms": choosing,
            "error": float(error),
        }
    return facts


def show(
    setting: str,
    rounds: Mapping[str, list[float]],
    facts: Mapping[str, dict[str, float]],
    console: Console,
) -> None:
    """A row per arm."""
    table = Table(title=f"{TITLE}: {setting}")
    columns = ("arm", "median ms", "times dense", "density", "choosing ms", "error")
    for column in columns:
        table.add_column(column, justify="left" if column == "arm" else "right")
    for name, times in rounds.items():
        fact = facts.get(name, {"density": 1.0, "choosing_ms": 0.0, "error": 0.0})
        table.add_row(
            name,
            f"{median(times):.0f}",
            f"{ratio(rounds, name, DENSE):.3f}",
            f"{fact['density']:.1%}",
            f"{fact['choosing_ms']:.0f}",
            f"{fact['error']:.3f}",
        )
    console.print(table)


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/prefill.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console, rows, facts = Console(), {}, {}
    for dtype in arguments.dtypes:
        setting = f"{dtype}, {arguments.tokens}"
        prompt = make_prompt(arguments.tokens, NUM_KV_HEADS, GROUP, HEAD_DIM, DTYPES[dtype])
        arms = arms_of(prompt)
        facts[setting] = facts_of(prompt, arms)
        rows[setting] = interleave(
            {name: timed(arm) for name, arm in arms.items()}, arguments.rounds
        )
        show(setting, rows[setting], facts[setting], console)
    settings = {name: repr(pattern) for name, pattern in PATTERNS.items()}
    save(arguments.out, TITLE, rows, clock="CPU time", arms=facts, patterns=settings)


if __name__ == "__main__":
    main()
