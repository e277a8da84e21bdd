"""`kvloom-vllm serve MODEL ...`: `vllm serve` with the composed system, or code 2 and one line.

vLLM runs in processes of its own, which log what they meet and end as vLLM ends; this one waits for
them, and has the last word.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from backends.vllm.reason import FILE
from backends.vllm.versions import installed_version, refusal_of
from harness.exits import USAGE, complain

SERVER = "backends.vllm.serve"
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
# What a shell makes of a process that a signal has ended.
SIGNALLED = 128
PATIENCE_S = 5


def main() -> int:
    """The exit code of vLLM; 2 where the composed system, or vLLM with it, is refused."""
    words = sys.argv[1:]
    if words[:1] != ["serve"]:
        complain(
            f"{' '.join(words[:1]) or 'nothing'} is asked for; use kvloom-vllm serve MODEL ..."
        )
        return USAGE
    if (reason := refusal_of(installed_version())) is not None:
        complain(reason)
        return USAGE
    with TemporaryDirectory(prefix="kvloom-") as folder:
        told = Path(folder) / "reason"
        code = _run([sys.executable, "-m", SERVER, *words], {FILE: str(told)})
        if code and told.exists():
            complain(told.read_text())
            return USAGE
    return code


def _run(command: Sequence[str], own: Mapping[str, str]) -> int:
    """Wait for a command, and pass on what asks it to end; its exit code."""
    # A group of its own: a terminal's Ctrl-C would reach it a second time.
    with subprocess.Popen(command, env=os.environ | own, start_new_session=True) as server:
        for number in PASSED_ON:
            signal.signal(number, lambda asked, _: server.send_signal(asked))
        code = server.wait()
        _wait_for_the_rest(server.pid)
    return code if code >= 0 else SIGNALLED - code


def _wait_for_the_rest(group: int) -> None:
    """Let what the server has started have its say before the last word, but not for long."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
