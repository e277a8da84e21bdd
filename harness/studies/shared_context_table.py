"""Systems on shared contexts as a table for people; it only formats what was found."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.table import print_text


def render_shared(found: dict[str, Any], console: Console) -> None:
    """Print scores by system and question, what was lost, and how the numbers came about."""
    protocol = found["protocol"]
    title = f"{protocol['num_questions']} questions of each context, protocol {protocol['name']}"
    print_text(console, title, "bold")
    console.print(_table(found))
    for what, rule in found["rules"].items():
        print_text(console, f"{what}: {rule}", "dim")


def _table(found: dict[str, Any]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("system", "question", "score", "vs dense", "worse/better", "p"):
        left = name in ("system", "question")
        shown.add_column(name, justify="left" if left else "right", overflow="fold")
    lost = {(one["system"], one["task"]): one for one in found["losses"]}
    for name, scores in found["scores"].items():
        for task, score in scores.items():
            shown.add_row(name, Text(task), _score(score), *_loss(lost.get((name, task))))
    return shown


def _score(score: dict[str, Any]) -> Text:
    bounds = score["ci"]
    return Text(f"{score['value']:.2f} [{bounds['lo']:.2f}, {bounds['hi']:.2f}]")


def _loss(one: dict[str, Any] | None) -> list[str]:
    if one is None:
        return [""] * 3
    return [f"{one['change']:+.2f}", f"{one['harmful']}/{one['beneficial']}", f"{one['p']:.2g}"]
