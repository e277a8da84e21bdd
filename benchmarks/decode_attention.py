"""One layer of decode attention: each kernel against dense, and against what memory can do.

8 kv heads of 128, 4 query heads each, pages of 16 tokens, of which 2048 are read. Interleaved
rounds in one process, one thread; every call finds the caches cold, Python's too.

python -m benchmarks.decode_attention
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table

from backends.attention.cpu import Cpu
from benchmarks import decode_arms as arms
from benchmarks.decode_arms import Arm, arms_of, largest_error
from benchmarks.decode_case import HEAD_DIM, SCALE, Case, make_case, selection_of
from benchmarks.rounds import Competitor, interleave, ratio, save
from benchmarks.vllm_kernel import installed
from benchmarks.yardsticks import Evictor

TITLE = "One layer of decode attention, cold caches"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
TOLERANCE = {torch.bfloat16: 3e-2, torch.float32: 1e-4}
Rounds = dict[str, list[float]]


@dataclass(frozen=True)
class Target:
    """A ratio of times that is to be reached: how often `under` fits in `over`."""

    over: str
    under: str
    least: float
    setting: str


TARGETS = (
    Target(arms.SDPA, arms.FUSED, 22, "bfloat16, 32768"),
    Target(arms.SDPA, arms.FUSED, 60, "bfloat16, 131072"),
    Target(arms.DENSE, arms.FUSED, 6, "bfloat16, 32768"),
    Target(arms.DENSE, arms.FUSED, 12, "bfloat16, 131072"),
    Target(arms.VLLM_SAME, arms.SAME, 1.8, "bfloat16, 32768"),
    Target(arms.READ_RANDOM, arms.RANDOM, 0.75, "bfloat16, 32768"),
    Target(arms.READ_RUN, arms.RUN, 0.80, "bfloat16, 32768"),
    Target(arms.READ_SUMMARIES, arms.SELECT, 0.80, "bfloat16, 131072"),
)


def cold(arm: Arm, evict: Evictor) -> Competitor:
    """Milliseconds of the arm's next call, once the caches are emptied."""
    calls = cycle(arm.calls)

    def timed() -> float:
        call = next(calls)
        evict()
        start = perf_counter()
        call()
        return 1e3 * (perf_counter() - start)

    return timed


def measure(case: Case, num_rounds: int) -> tuple[Rounds, dict[str, Arm]]:
    """Rounds of all arms, whose answers were compared before."""
    for name, error in largest_error(case).items():
        limit = TOLERANCE[case.pool_FPSD.dtype]
        assert error < limit, f"{name} is off by {error:.1e} of the largest value"
    competitors, evict = arms_of(case), Evictor()
    timed = {name: cold(arm, evict) for name, arm in competitors.items()}
    return interleave(timed, num_rounds), competitors


def scaling(case: Case, num_rounds: int) -> Rounds:
    """The fused step and our dense on one thread and on two."""
    evict, steps = Evictor(), case.steps()
    every = selection_of(case.frames_RP.flatten())
    competitors = {}
    for num_threads in (1, 2):
        kernel = Cpu(HEAD_DIM)
        dense = [
            partial(kernel.decode, each, case.pool_FPSD, every, SCALE) for each in case.query_VRGD
        ]
        fused = [partial(kernel.decode_step, each) for each in steps]
        for name, calls in ((arms.FUSED, fused), (arms.DENSE, dense)):
            timed = cold(Arm(calls, 0, ""), evict)
            competitors[on(name, num_threads)] = _on_threads(num_threads, timed)
    return interleave(competitors, num_rounds)


def on(name: str, num_threads: int) -> str:
    """An arm that is measured on so many threads."""
    return f"{name} (threads: {num_threads})"


def _on_threads(num_threads: int, timed: Competitor) -> Competitor:
    def on_threads() -> float:
        torch.set_num_threads(num_threads)
        elapsed = timed()
        torch.set_num_threads(1)
        return elapsed

    return on_threads


def show(setting: str, rounds: Rounds, competitors: Mapping[str, Arm], console: Console) -> None:
    """A row per arm: its time, what it is to dense, and what to the bare read of its bytes."""
    table = Table(title=f"{TITLE}: {setting} tokens")
    columns = ("arm", "median us", "least", "times sdpa", "MiB", "GB/s", "of the bound")
    for column in columns:
        table.add_column(column, justify="left" if column == "arm" else "right")
    for name, times in rounds.items():
        arm = competitors[name]
        table.add_row(
            name,
            f"{1e3 * median(times):.0f}",
            f"{1e3 * min(times):.0f}",
            f"{1 / ratio(rounds, name, arms.SDPA):.2f}",
            f"{arm.num_bytes / 2**20:.0f}",
            f"{arm.num_bytes / median(times) / 1e6:.1f}",
            f"{ratio(rounds, arm.bound, name):.0%}",
        )
    console.print(table)


def judge(rows: Mapping[str, Rounds], console: Console) -> list[dict[str, object]]:
    """The targets, by medians of the ratios within a round."""
    table = Table(title="Targets")
    for column in ("setting", "ratio", "least", "measured", ""):
        table.add_column(column)
    verdicts = []
    for target in TARGETS:
        rounds = rows.get(target.setting, {})
        if target.over not in rounds:
            continue
        measured = ratio(rounds, target.over, target.under)
        name, reached = f"{target.over} / {target.under}", measured >= target.least
        table.add_row(
            target.setting,
            name,
            f"{target.least:g}",
            f"{measured:.2f}",
            "reached" if reached else "missed",
        )
        verdicts.append(
            {
                "setting": target.setting,
                "ratio": name,
                "least": target.least,
                "measured": measured,
            }
        )
    console.print(table)
    return verdicts


def facts_of(rounds: Rounds, competitors: Mapping[str, Arm]) -> dict[str, dict[str, object]]:
    """Bytes touched, rate, and share of the bound, by arm."""
    return {
        name: {
            "bytes": competitors[name].num_bytes,
            "gb_per_s": competitors[name].num_bytes / median(times) / 1e6,
            "bound": competitors[name].bound,
            "of_bound": ratio(rounds, competitors[name].bound, name),
        }
        for name, times in rounds.items()
    }


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, nargs="+", default=[8192, 32768, 131072])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument(
        "--out", type=Path, default=Path("results/benchmarks/decode_attention.json")
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console, rows, facts = Console(), {}, {}
    for dtype in arguments.dtypes:
        for context in arguments.contexts:
            setting = f"{dtype}, {context}"
            case = make_case(context, DTYPES[dtype])
            rows[setting], competitors = measure(case, arguments.rounds)
            facts[setting] = facts_of(rows[setting], competitors)
            show(setting, rows[setting], competitors, console)
    context = min(arguments.contexts, key=lambda each: abs(each - 32768))
    case = make_case(context, DTYPES[arguments.dtypes[0]])
    threads = f"{arguments.dtypes[0]}, {context}, threads"
    rows[threads] = scaling(case, arguments.rounds)
    for name in (arms.FUSED, arms.DENSE):
        gain = ratio(rows[threads], on(name, 1), on(name, 2))
        console.print(f"{threads}: {name} is {gain:.2f} times as fast on two threads as on one")
    verdicts = judge(rows, console)
    save(arguments.out, TITLE, rows, arms=facts, targets=verdicts, vllm=installed())


if __name__ == "__main__":
    main()
