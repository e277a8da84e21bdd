"""How far a sweep is: a line for each cell that ended, and a bar on a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console

from harness.progress import bar, clock
from harness.sweeps.job import Done

Tell = Callable[[Done], None]


@contextmanager
def display(*, total: int, console: Console) -> Iterator[Tell]:
    """A function to call with each cell that ended."""
    pace = _Pace(total)
    if not console.is_terminal:
        yield lambda done: _say(f"{pace.line(done)}{pace.left()}", console)
        return
    with bar(total=total, unit="cells", console=console) as advance:

        def tell(done: Done) -> None:
            _say(pace.line(done), console)
            advance(pace.left().strip(" ()"))

        yield tell


def line(done: Done, number: int, total: int) -> str:
    """How a cell went: the number of those that ended, its name, and what became of it."""
    return f"[{number}/{total}] {done.label}: {done.words}"


@dataclass
class _Pace:
    total: int
    started_s: float = field(default_factory=time.monotonic)
    num_ended: int = 0
    num_run: int = 0

    def line(self, done: Done) -> str:
        self.num_ended += 1
        self.num_run += not done.was_kept
        return line(done, self.num_ended, self.total)

    def left(self) -> str:
        """The time left, at the pace of the cells that did not lie in the store already."""
        missing = self.total - self.num_ended
        if not missing or not self.num_run:
            return ""
        each_s = (time.monotonic() - self.started_s) / self.num_run
        return f"  ({clock(each_s * missing)} left)"


def _say(text: str, console: Console) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
