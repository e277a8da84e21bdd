"""A command with a time limit, of which nothing is left when the limit is over."""

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from tempfile import TemporaryFile
from typing import IO

import psutil


def run_limited(
    command: Sequence[str], given: str, environment: Mapping[str, str], *, timeout_s: float
) -> str | None:
    """Run a command on an input; None if it went well, otherwise why not, in one line.

    What it prints to stdout is the reason of its failure, or the last line on stderr.
    """
    # Files, not pipes: a pipe is held open by whatever the command leaves behind.
    with TemporaryFile() as answer, TemporaryFile() as said:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=said,
            # Ctrl-C reaches this process alone, which then ends the child.
            start_new_session=True,
        )
        try:
            child.communicate(given.encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"not done after {timeout_s:g} s"
        finally:
            _end(child)
        if child.returncode == 0:
            return None
        return _last_line(answer) or _last_line(said) or f"exit code {child.returncode}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what still runs, and all that it started, in whichever session that is."""
    if child.poll() is not None:
        return
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(child.pid).children(recursive=True)
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    child.kill()
    child.wait()
    # A signal takes a moment; what init does not collect is not waited for.
    psutil.wait_procs(started, timeout=1)


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
