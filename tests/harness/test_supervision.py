"""A process under limits: it ends within them, and nothing of it stays."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from harness.sweeps.supervision import Ended, Limits, supervise
from tests.harness.test_store import wait_for

ROOT = Path(__file__).resolve().parents[2]
# A process with a child of its own, which it tells of, both deaf to what is not SIGKILL.
PARENT = """
    import signal, subprocess, sys, time
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", {child!r}])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def run(script: str, log: Path, **limits: float) -> Ended:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return supervise(command, log, Limits(**limits))  # type: ignore[arg-type]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_process_is_told_of_as_it_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = run("import sys; print('said'); print('cried', file=sys.stderr); sys.exit(7)", log)
    assert (ended.end, ended.code) == ("exited", 7)
    assert sorted(log.read_text().split()) == ["cried", "said"]
    killed = run("import os; os.kill(os.getpid(), 11)", log)
    assert (killed.end, killed.code) == ("exited", -signal.SIGSEGV)


def test_what_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = run(PARENT.format(child="import time; time.sleep(60)"), log, timeout_s=2)
    assert (ended.end, ended.code) == ("timeout", -signal.SIGKILL)
    assert 2 <= ended.seconds < 30
    pid = int(log.read_text())
    wait_for(lambda: is_gone(pid))


def test_the_memory_of_children_counts(tmp_path: Path) -> None:
    hungry = "import time; held = b'x' * (200 << 20); time.sleep(60)"
    log = tmp_path / "log"
    ended = run(PARENT.format(child=hungry), log, memory_bytes=150 << 20, timeout_s=50)
    assert ended.end == "memory"
    assert ended.peak_bytes > 150 << 20
    pid = int(log.read_text())
    wait_for(lambda: is_gone(pid))


SUPERVISOR = """
    import sys
    from pathlib import Path
    from harness.sweeps.supervision import Limits, supervise
    script = {script!r}
    ended = supervise([sys.executable, "-c", script], Path({log!r}), Limits())
    print(ended.end, ended.code, flush=True)
"""
POLITE = """
import sys, time
print("up", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    print("written", flush=True)
    sys.exit(130)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""


def start(script: str, log: Path) -> subprocess.Popen[str]:
    source = textwrap.dedent(SUPERVISOR).format(script=script, log=str(log))
    parent = subprocess.Popen(
        [sys.executable, "-c", source],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts what it leaves in the background deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: log.exists() and "up" in log.read_text())
    return parent


def test_stopped_once_a_cell_may_finish(tmp_path: Path) -> None:
    parent = start(POLITE, tmp_path / "log")
    parent.send_signal(signal.SIGINT)
    assert parent.communicate(timeout=30)[0].split() == ["interrupted", "130"]
    assert (tmp_path / "log").read_text().split() == ["up", "written"]


def test_stopped_twice_it_is_killed(tmp_path: Path) -> None:
    parent = start(STUBBORN, tmp_path / "log")
    parent.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert parent.poll() is None
    parent.send_signal(signal.SIGINT)
    assert parent.communicate(timeout=30)[0].split() == ["interrupted", "-9"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_no_cell_outlives_a_killed_sweep(tmp_path: Path) -> None:
    parent = start(f"import os; print(os.getpid(), flush=True)\n{STUBBORN}", tmp_path / "log")
    pid = int((tmp_path / "log").read_text().split()[0])
    assert not is_gone(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate(timeout=30)
    wait_for(lambda: is_gone(pid))
