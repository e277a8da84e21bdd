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
    for label, cell in counted_rows(list(arms.values())):
        shown.add_row(label, *(cell(arm) for arm in arms.values()))
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


def counted_rows(arms: list[Arm]) -> Iterator[tuple[str, Callable[[Arm], str]]]:
    """Labels, and how to show an arm; bytes are means per decode step."""
    yield "decode steps", lambda arm: count(arm["decode_steps"])
    yield "hit rate", lambda arm: _known(arm["hit_rate"], percent)
    yield "pages wanted", lambda arm: count(_decode(arm)["pages_wanted"])
    yield "pages evicted", lambda arm: count(_decode(arm)["pages_evicted"])
    yield "read amplification", lambda arm: _known(arm["read_amplification"], digits)
    yield "KV read per step", lambda arm: _per_step(arm, _decode(arm)["bytes_read"])
    for pair in sorted({pair for arm in arms for pair in _decode(arm)["bytes_moved"]}):
        yield (
            f"{pair} per step",
            lambda arm, pair=pair: _per_step(arm, _decode(arm)["bytes_moved"].get(pair, 0)),
        )
    for tier in arms[0]["peak_bytes"]:
        yield f"peak {tier}", lambda arm, tier=tier: binary_bytes(arm["peak_bytes"][tier])
    yield "time of the replay", lambda arm: duration(1e3 * arm["replay_s"])


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


def _decode(arm: Arm) -> dict[str, Any]:
    counters: dict[str, Any] = arm["counters"]["decode"]
    return counters


def _per_step(arm: Arm, num_bytes: int) -> str:
    steps = arm["decode_steps"]
    return binary_bytes(num_bytes / steps) if steps else UNKNOWN


def _known(value: float | None, show: Callable[[float], str]) -> str:
    return UNKNOWN if value is None else show(value)
