"""What became of a cell whose process left no record: the status, and the reason in a line."""

import re
import signal
from pathlib import Path

from harness.record import RunError, RunStatus
from harness.sweeps.supervision import Ended, Limits
from harness.units import binary_bytes

REFUSED, STOPPED = 2, 130
# A shell, and Python's own children, tell of a signal so.
OF_SIGNALS = 128
ERROR_LINE = re.compile(r"(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*(?:Error|Exception|Exit)): ?(.*)")


def kernel_oom_kills(path: Path = Path("/proc/vmstat")) -> int | None:
    """How often the kernel killed a process for memory since it started; None if it won't say."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(one.split()[1]) for one in lines if one.startswith("oom_kill ")), None)


def classify(
    ended: Ended, limits: Limits, log: str, *, oom_killed: bool
) -> tuple[RunStatus, RunError]:
    """The status of a cell and what went wrong.

    log: what the process said; oom_killed: the kernel killed some process for memory meanwhile.
    """
    number = _signal(ended.code)
    match ended.end:
        case "timeout":
            why = f"took longer than sweep.timeout_s={limits.timeout_s:g}"
            return "timeout", _error("Timeout", why)
        case "memory":
            return "oom", _error("MemoryLimit", memory_note(ended, limits))
        case "interrupted":
            return "interrupted", _error("KeyboardInterrupt", "stopped")
        case "exited" if number == signal.SIGKILL and oom_killed:
            return "oom", _error("OutOfMemory", "killed by the kernel: the machine had no memory")
        case "exited" if number is not None:
            return "crash", _error("Signal", f"killed by {_name(number)}")
        case _:
            return _exited(ended.code, log)


def memory_note(ended: Ended, limits: Limits) -> str:
    """How much memory was used of how much."""
    used, most = binary_bytes(ended.peak_bytes), binary_bytes(limits.memory_bytes or 0)
    return f"resident memory of the cell reached {used}, sweep.memory allows {most}"


def _exited(code: int, log: str) -> tuple[RunStatus, RunError]:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if code == REFUSED:
        told = [line.removeprefix("kvloom: ") for line in lines if line.startswith("kvloom: ")]
        return "incompatible", _error("Refused", (told or lines or ["no reason given"])[-1])
    if code == STOPPED:
        return "interrupted", _error("KeyboardInterrupt", "stopped")
    last = lines[-1] if lines else f"exit code {code}, nothing said"
    found = ERROR_LINE.fullmatch(last)
    kind, message = (found[1], found[2]) if found else ("ExitCode", f"{code}: {last}")
    return ("oom" if kind == "MemoryError" else "failed"), _error(kind, message)


def _error(kind: str, message: str) -> RunError:
    return RunError(kind=kind, stage="cell", message=message)


def _signal(code: int) -> int | None:
    if code < 0:
        return -code
    return code - OF_SIGNALS if code > OF_SIGNALS and code != STOPPED else None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
