"""The command line of the store: check, index, gc.

0 all is well, 2 the request is off, 4 something is damaged.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.exits import FAILED, OK, USAGE, complain
from harness.stored.checking import Findings, check, num_quarantined
from harness.stored.index import INDEX, rebuild
from harness.stored.leftovers import IDLE_S, collect
from harness.stored.quarantine import quarantine

ROOT = Path("results/runs")


class Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str) -> NoReturn:
        """See ArgumentParser."""
        complain(f"{message}; {self.prog} --help tells more")
        raise SystemExit(USAGE)


def main(arguments: Sequence[str]) -> int:
    """Do what is asked for; the exit code."""
    options = _parser().parse_args(arguments)
    if not options.root.is_dir():
        complain(f"--root {options.root}: no such folder")
        return USAGE
    code: int = options.run(options, Console())
    return code


def run_check(options: argparse.Namespace, console: Console) -> int:
    """Read every trial and tell what there is."""
    findings = check(options.root)
    console.print(table(findings))
    for damaged in findings.damaged:
        where = damaged.folder.relative_to(options.root)
        _say(f"damaged: {where}: {damaged.reason}", console, "red")
        if options.quarantine:
            _say(f"  moved to {quarantine(damaged, options.root)}", console)
    if count := num_quarantined(options.root):
        _say(f"{count} in quarantine", console, "dim")
    return FAILED if findings.damaged else OK


def run_index(options: argparse.Namespace, console: Console) -> int:
    """Write the index anew."""
    started_s = time.perf_counter()
    indexed = rebuild(options.root)
    _say(
        f"{options.root / INDEX}: {indexed.num_rows} trials, {indexed.num_damaged} damaged, "
        f"{indexed.num_read} read, {time.perf_counter() - started_s:.1f} s",
        console,
    )
    return OK


def run_gc(options: argparse.Namespace, console: Console) -> int:
    """Remove what is left over."""
    removed = collect(options.root, keep=options.keep, idle_s=options.idle)
    _say(
        f"removed {removed.temporaries} broken writes, {removed.locks} locks that nobody held, "
        f"{removed.trials} old trials, {removed.unfinished} unfinished runs of other code",
        console,
    )
    return OK


def table(findings: Findings) -> Table:
    """Experiments by what became of their trials."""
    kinds = sorted({kind for counts in findings.statuses.values() for kind in counts} - {"ok"})
    lost: dict[str, int] = {}
    for one in findings.damaged:
        experiment = one.folder.parts[-3]
        lost[experiment] = lost.get(experiment, 0) + 1
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("experiment", overflow="fold")
    for name in ("trials", "ok", *kinds, "damaged"):
        shown.add_column(name, justify="right")
    for experiment in sorted({*findings.statuses, *lost}):
        counts = findings.statuses.get(experiment, Counter())
        row = [sum(counts.values()), *(counts[kind] for kind in ("ok", *kinds))]
        shown.add_row(*map(str, (experiment, *row, lost.get(experiment, 0))))
    return shown


def _parser() -> Parser:
    parser = Parser(prog="python harness/store.py", description="The store of trials.")
    commands = parser.add_subparsers(required=True, metavar="check|index|gc")
    checking = commands.add_parser("check", help="read every trial; exit code 4 if one is damaged")
    checking.add_argument("--quarantine", action="store_true", help="move damaged ones away")
    checking.set_defaults(run=run_check)
    indexing = commands.add_parser("index", help="write index.jsonl anew")
    indexing.set_defaults(run=run_index)
    collecting = commands.add_parser("gc", help="remove broken writes and locks that nobody holds")
    collecting.add_argument(
        "--keep", type=_positive, metavar="N", help="the newest N trials of each cell and code"
    )
    collecting.add_argument(
        "--idle", type=float, default=IDLE_S, metavar="S", help="seconds without a change (60)"
    )
    collecting.set_defaults(run=run_gc)
    for one in (checking, indexing, collecting):
        one.add_argument("--root", type=Path, default=ROOT, help=f"default {ROOT}")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _say(text: str, console: Console, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
