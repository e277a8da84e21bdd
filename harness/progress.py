"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

NUM_LINES = 10

Advance = Callable[[str], None]


@contextmanager
def progress(*, total: int, unit: str, console: Console) -> Iterator[Advance]:
    """A function to call with a description after each of `total` pieces of work."""
    shown = bar if console.is_terminal else lines
    with shown(total=total, unit=unit, console=console) as advance:
        yield advance


@contextmanager
def bar(*, total: int, unit: str, console: Console) -> Iterator[Advance]:
    """A bar with the time left; it leaves nothing behind."""
    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("", total=total)
        yield lambda description: shown.update(task, advance=1, description=description)


@contextmanager
def lines(*, total: int, unit: str, console: Console) -> Iterator[Advance]:
    """At most ten plain lines over the whole of the work."""
    started_s, num_done = time.perf_counter(), 0

    def advance(description: str) -> None:
        nonlocal num_done
        num_done += 1
        if num_done * NUM_LINES // total == (num_done - 1) * NUM_LINES // total:
            return
        left_s = (time.perf_counter() - started_s) / num_done * (total - num_done)
        left = f"{num_done}/{total} {unit}, {clock(left_s)} left"
        console.print(f"{left}  {description}".rstrip(), markup=False, highlight=False)

    yield advance


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
