"""Hit ratios as a table for people; it only formats what was found."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from harness.table import print_text
from harness.units import count

MOST_COLUMNS = 9


def render_hit_ratios(found: dict[str, Any], console: Console) -> None:
    """Print a line per policy, best first, and how the numbers came about."""
    trace, ratios = found["trace"], found["ratios"]
    print_text(
        console,
        f"hit ratio in %, simulated on page ids | {trace['algorithm']} on {trace['model']} | "
        f"{len(trace['requests'])} requests, {found['steps']} decode steps | mandatory "
        f"{count(found['mandatory_pages'])} pages",
        "bold",
    )
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("buffering : mandatory")
    columns = _columns(ratios)
    for index in columns:
        shown.add_column(f"{ratios[index]:g}", justify="right")
    shown.add_column("knee", justify="right")
    curves = found["hit_ratio"]
    for name in sorted(curves, key=lambda one: -sum(curves[one])):
        cells = (f"{100 * curves[name][index]:.1f}" for index in columns)
        shown.add_row(name, *cells, f"{found['knee'][name]:g}")
    console.print(shown)
    for what, rule in found["rules"].items():
        print_text(console, f"{what}: {rule}", "dim")


def _columns(ratios: list[float]) -> list[int]:
    """Whole ratios, or as many of all as fit."""
    whole = [index for index, ratio in enumerate(ratios) if ratio == int(ratio)]
    return (whole if len(whole) > 1 else list(range(len(ratios))))[:MOST_COLUMNS]
