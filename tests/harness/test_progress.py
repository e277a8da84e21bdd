"""How far a run is, on a terminal and in a log file."""

import io
import re

import pytest
from rich.console import Console

from harness.progress import clock, progress


@pytest.mark.parametrize(("total", "num_lines"), [(48, 10), (1000, 10), (3, 3), (1, 1)])
def test_a_log_gets_at_most_ten_lines_and_the_last_piece(total: int, num_lines: int) -> None:
    file = io.StringIO()
    with progress(total=total, unit="requests", console=Console(file=file, width=80)) as advance:
        for _ in range(total):
            advance("dense [vt]")
    lines = file.getvalue().splitlines()
    assert len(lines) == num_lines
    assert lines[-1] == f"{total}/{total} requests, 00:00 left  dense [vt]"
    assert all(re.match(r"\d+/\d+ requests, \d\d:\d\d left", line) for line in lines)


def test_a_terminal_gets_a_bar_that_leaves_nothing_behind() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True)
    with progress(total=2, unit="requests", console=console) as advance:
        advance("dense")
        advance("quest")
    assert "2/2" in file.getvalue()
    assert file.getvalue().endswith("\x1b[2K")


def test_an_exception_passes_through() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with (
        pytest.raises(ValueError, match="broken"),
        progress(total=2, unit="requests", console=console),
    ):
        raise ValueError("broken")


def test_time_left_has_hours_only_when_there_are_some() -> None:
    assert [clock(seconds) for seconds in (35.4, 61, 3725)] == ["00:35", "01:01", "1:02:05"]
