"""The findings of a replay as a table for people; it only formats what was found."""

from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.table import print_text
from harness.units import UNKNOWN, binary_bytes, count, digits, duration, percent

Arm = dict[str, Any]
STEP_ROWS = {
    "attention reads": "attention_ms",
    "transfers": "transfer_ms",
    "rest of the model": "rest_ms",
    "step, transfers exposed": "serial_ms",
    "step, transfers overlapped": "overlapped_ms",
}


def render_replay(found: dict[str, Any], console: Console) -> None:
    """Print what was counted, and apart from it what was simulated."""
    trace, system, arms = found["trace"], found["system"], found["arms"]
    print_text(
        console,
        f"replay of {trace['algorithm']} on {trace['model']} | {found['num_requests']} requests, "
        f"{found['num_calls']} calls | {system['tier']} | cache {system['cache']}",
        "bold",
    )
    shown = _table("counted, no model", [f"budgets {name}" for name in arms])
    for label, cells in counted_rows(list(arms.values())):
        shown.add_row(label, *cells)
    console.print(shown)
    if found["step_times"]:
        console.print(_simulated(found))
        print_text(
            console,
            "simulated: counted bytes over published peaks (conf/hardware); no real step is as "
            "fast",
            "dim",
        )
    else:
        print_text(console, f"hardware={system['hardware']} models no step times", "dim")


def counted_rows(arms: list[Arm]) -> Iterator[tuple[str, list[str]]]:
    """Labels, and a cell for each arm; bytes are means per decode step."""
    decodes = [arm["counters"]["decode"] for arm in arms]
    steps = [arm["decode_steps"] for arm in arms]
    yield "decode steps", list(map(count, steps))
    yield "hit rate", [_known(arm["hit_rate"], percent) for arm in arms]
    yield "pages wanted", [count(one["pages_wanted"]) for one in decodes]
    yield "pages evicted", [count(one["pages_evicted"]) for one in decodes]
    yield "read amplification", [_known(arm["read_amplification"], digits) for arm in arms]
    yield "KV read per step", _per_step([one["bytes_read"] for one in decodes], steps)
    moved = [one["bytes_moved"] for one in decodes]
    for pair in sorted({pair for one in moved for pair in one}):
        yield f"{pair} per step", _per_step([one.get(pair, 0) for one in moved], steps)
    for tier in arms[0]["peak_bytes"]:
        yield f"peak {tier}", [binary_bytes(arm["peak_bytes"][tier]) for arm in arms]
    yield "time of the replay", [duration(1e3 * arm["replay_s"]) for arm in arms]


def _simulated(found: dict[str, Any]) -> Table:
    steps = found["step_times"]
    shape = next(iter(steps.values()))["shape"]
    title = f"simulated, {found['system']['hardware']}, {shape}, mean of decode steps"
    shown = _table(title, [f"simulated, budgets {name}" for name in steps])
    for label, key in STEP_ROWS.items():
        shown.add_row(label, *(duration(step[key]) for step in steps.values()))
    return shown


def _table(title: str, columns: list[str]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column(Text(title), overflow="fold")
    for name in columns:
        shown.add_column(name, justify="right", overflow="fold")
    return shown


def _per_step(num_bytes: list[int], steps: list[int]) -> list[str]:
    pairs = zip(num_bytes, steps, strict=True)
    return [binary_bytes(total / count) if count else UNKNOWN for total, count in pairs]


def _known(value: float | None, show: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else show(value)
