"""`python harness/compare.py`: what its words ask for, errors in one line, and the exit code."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from harness.comparing.bench import Bench, measure_noise
from harness.comparing.compared import both_trees, compare_stored, compare_trees
from harness.comparing.finding import INTERRUPTED, NOTHING, OK, USAGE, Comparison
from harness.comparing.launching import Launch, RunFailedError, launch
from harness.comparing.noise import keep
from harness.comparing.options import ROOT, Options, parse
from harness.comparing.outputs import append_step_summary, write
from harness.comparing.table import render
from harness.tracking.commands import accept_trial, gate, track


def main(words: Sequence[str], launched: Launch = launch, repository: Path = ROOT) -> int:
    """Do what is asked. launched: how a tree is run; repository: of revisions and working tree."""
    console = Console(soft_wrap=False)
    name, rest = (words[0], words[1:]) if words and words[0] in COMMANDS else ("compare", words)
    try:
        with _stopped_once():
            return COMMANDS[name](rest, launched, repository, console)
    except ValueError as error:
        _complain(error)
        return USAGE
    except RunFailedError as error:
        _complain(error)
        return NOTHING
    except KeyboardInterrupt:
        return INTERRUPTED


def _compare(words: Sequence[str], launched: Launch, repository: Path, console: Console) -> int:
    options = parse(words)
    if options.runs_git:
        found = compare_trees(options, launched, repository, _telling(console))
    else:
        found = compare_stored(options)
    return _publish(found, options, console)


def _noise(words: Sequence[str], launched: Launch, repository: Path, console: Console) -> int:
    options = parse(words)
    if options.candidate is not None:
        raise ValueError("aa runs one side against itself: give base=git:<rev>, or nothing")
    with both_trees(options.model_copy(update={"candidate": options.base}), repository) as trees:
        row = measure_noise(Bench(trees, options, launched, _telling(console)))
    keep(Path(options.baselines), row)
    for metric, noise in row.noise.items():
        console.print(f"{metric}: {100 * noise:.1f} %", highlight=False)
    return OK


def _accept(words: Sequence[str], _: Launch, __: Path, console: Console) -> int:
    path, reason, rest = _with_reason(words)
    if path is None or not reason:
        raise ValueError('accept takes a trial and reason="..."')
    baseline = accept_trial(Path(path), reason, parse(rest))
    console.print(f"accepted {baseline.label}: {baseline.reason}", highlight=False, markup=False)
    return OK


def _track(words: Sequence[str], _: Launch, __: Path, console: Console) -> int:
    paths = [word for word in words if "=" not in word]
    options = parse([word for word in words if "=" in word])
    if not paths:
        raise ValueError("track takes a trial, a cell or an experiment")
    return _publish(track(Path(paths[0]), options), options, console)


def _gate(words: Sequence[str], launched: Launch, repository: Path, console: Console) -> int:
    _path, reason, rest = _with_reason(words)
    options = parse(rest)
    return _publish(gate(options, launched, repository, reason), options, console)


def _with_reason(words: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """A path, a reason, and the other words."""
    reasons = [word.removeprefix("reason=") for word in words if word.startswith("reason=")]
    rest = [word for word in words if not word.startswith("reason=")]
    paths = [word for word in rest if "=" not in word]
    return (
        paths[0] if paths else None,
        reasons[-1] if reasons else None,
        [word for word in rest if word not in paths],
    )


def _publish(found: Comparison, options: Options, console: Console) -> int:
    render(found, console)
    if options.out is not None:
        write(found, Path(options.out))
    append_step_summary(found)
    return found.exit_code


def _telling(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, style="dim", highlight=False, markup=False)


def _complain(error: Exception) -> None:
    print(f"kvloom: {' '.join(str(error).split())}", file=sys.stderr)


@contextmanager
def _stopped_once() -> Iterator[None]:
    """Ctrl-C and SIGTERM stop, once: what clears up is not stopped by the second one."""

    def stop(_: int, __: FrameType | None) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Command = Callable[[Sequence[str], Launch, Path, Console], int]
COMMANDS: dict[str, Command] = {
    "compare": _compare,
    "aa": _noise,
    "accept": _accept,
    "track": _track,
    "gate": _gate,
}
