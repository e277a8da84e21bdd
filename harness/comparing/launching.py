"""One run of a tree in a process of its own, killed with its children when its time is over."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.comparing.sides import load
from harness.stored.trials import Trial

# A tree, the overrides and a time limit in seconds: the trial that it wrote.
Launch = Callable[[Path, Sequence[str], float], Trial]
LAST_WORDS = 400


class RunFailedError(Exception):
    """A run that left nothing to compare; the message is the reason."""


def launch(tree: Path, overrides: Sequence[str], timeout_s: float) -> Trial:
    """Run `harness/run.py` of a tree, with this interpreter; raises RunFailedError."""
    with tempfile.TemporaryDirectory(prefix="kvloom-run-") as results:
        command = [sys.executable, "harness/run.py", *overrides, f"results={results}"]
        said = _call(command, tree, timeout_s)
        found = load(Path(results))
        if not found.trials:
            raise RunFailedError(said or "the run wrote no record and said nothing")
        trial = found.trials[-1]
        # Read before the folder goes.
        return Trial(trial.folder, trial.record.model_copy(update={"samples": trial.samples}))


def _call(command: Sequence[str], tree: Path, timeout_s: float) -> str:
    """The last words of a process that must end in time."""
    process = subprocess.Popen(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise RunFailedError(f"no end after {timeout_s:.0f} s") from None
    finally:
        # The process may be gone, and its children not.
        _kill_group(process)
    return " ".join(errors.split())[-LAST_WORDS:]


def _kill_group(process: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
