"""A comparison of algorithms as tables for people; it only formats what was found."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.table import print_text
from harness.units import percent


def render_algorithms(found: dict[str, Any], console: Console) -> None:
    """Print a table for each length, and how the numbers came about."""
    for length in found["lengths"]:
        points = [point for point in found["points"] if point["length"] == length]
        print_text(console, f"score (KV read), {length:,} tokens", "bold")
        console.print(_table(points, found["budgets"]))
        for one in found["separations"]:
            if one["length"] == length:
                said = f"{one['num_separated']} of {one['num_pairs']} pairs separated"
                print_text(console, f"budget {one['budget']:,}: {said}", "")
    for one in found["left_out"]:
        said = f"{one['task']} at {one['length']:,} tokens: dense scores {one['dense']:.2f} only"
        print_text(console, f"left out: {said}", "yellow")
    for reason in dict.fromkeys(one["refused"] for one in found["points"] if "refused" in one):
        print_text(console, f"refused: {reason}", "dim")
    for what, rule in found["rules"].items():
        print_text(console, f"{what}: {rule}", "dim")


def _table(points: list[dict[str, Any]], budgets: list[int]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("budget")
    for budget in budgets:
        shown.add_column(f"{budget:,}", justify="right")
    by_algo: dict[str, dict[int | None, dict[str, Any]]] = {}
    for point in points:
        by_algo.setdefault(point["algo"], {})[point["budget"]] = point
    for algo in sorted(by_algo, key=lambda name: -_mean(by_algo[name])):
        at = by_algo[algo]
        if None in at:
            shown.add_row(f"{algo} (no budget)", *[_cell(at[None])] * len(budgets))
        else:
            shown.add_row(algo, *(_cell(at.get(budget)) for budget in budgets))
    return shown


def _mean(at: dict[int | None, dict[str, Any]]) -> float:
    scores = [point["score"] for point in at.values() if "score" in point]
    return sum(scores) / len(scores) if scores else -1.0


def _cell(point: dict[str, Any] | None) -> Text:
    if point is None or "refused" in point:
        return Text("refused" if point else "-", style="dim")
    read = "-" if point["kv_read"] is None else percent(point["kv_read"])
    return Text(f"{point['score']:.2f} ({read})", style="bold" if point["front"] else "")
