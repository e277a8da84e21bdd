"""A process under limits: of time, and of the memory of it and its children."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil

PR_SET_PDEATHSIG = 1
POLL_S = 0.1
# For a run that was asked to stop and writes down what it has.
GRACE_S = 60.0
End = Literal["exited", "timeout", "memory", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """None is no limit; memory_bytes: resident, of a process and all its children."""

    timeout_s: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended. code: its exit code, or minus the signal that killed it."""

    end: End
    code: int
    seconds: float
    peak_bytes: int


def supervise(command: Sequence[str], log: Path, limits: Limits) -> Ended:
    """Run a command, both its outputs in `log`; past a limit, kill it and all its children.

    A KeyboardInterrupt is passed on to the command, which may finish; a second one kills it.
    """
    started_s = time.monotonic()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            # A group of its own, which is killed as one and hears no Ctrl-C of ours.
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
    watch = _Watch(child, started_s, limits)
    try:
        end = watch.until_the_end()
    finally:
        # Also where we fail: nothing of a cell outlives it.
        _kill(child)
    return Ended(
        end=end,
        code=child.returncode,
        seconds=time.monotonic() - started_s,
        peak_bytes=watch.peak_bytes,
    )


@dataclass
class _Watch:
    child: "subprocess.Popen[bytes]"
    started_s: float
    limits: Limits
    peak_bytes: int = 0
    deadline_s: float = float("inf")
    end: End = "exited"

    def until_the_end(self) -> End:
        if self.limits.timeout_s is not None:
            self.deadline_s = self.started_s + self.limits.timeout_s
        while self.child.poll() is None:
            try:
                if self._is_past():
                    break
                with suppress(subprocess.TimeoutExpired):
                    self.child.wait(POLL_S)
            except KeyboardInterrupt:
                if self.end == "interrupted":
                    break
                self._ask_to_stop()
        return self.end

    def _is_past(self) -> bool:
        self.peak_bytes = max(self.peak_bytes, _resident(self.child.pid))
        most = self.limits.memory_bytes
        if time.monotonic() > self.deadline_s:
            self.end = self.end if self.end == "interrupted" else "timeout"
            return True
        if most is not None and self.peak_bytes > most:
            self.end = "memory"
            return True
        return False

    def _ask_to_stop(self) -> None:
        self.end, self.deadline_s = "interrupted", time.monotonic() + GRACE_S
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGINT)


def _resident(pid: int) -> int:
    """Bytes of a process and its children; one that ends meanwhile has none."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += one.memory_info().rss
    return total


def _kill(child: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _die_with_parent() -> Any:
    """What a child does first, so that it is not left behind when we are killed."""
    if sys.platform != "linux":
        return None
    return partial(ctypes.CDLL(None).prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
