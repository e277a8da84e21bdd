"""`vllm serve` with the plug-in: `vllm bench serve` completes, and dense never serves instead."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from harness.bench_import import main as bench_import
from harness.stored.trials import trials
from tests.vllm.engines import MODEL, ROOT

pytestmark = pytest.mark.slow

VLLM = [sys.executable, "-m", "vllm.entrypoints.cli.main"]
OURS = [sys.executable, "-m", "harness.serve"]
WORKER = ("--worker-cls", "backends.vllm.worker.CheckedWorker")
COMPOSED = ("--additional-config", '{"kvloom": ["algo=quest", "algo.retrieve.budget_tokens=64"]}')
SMALL = (
    *("--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "4", "--enforce-eager"),
    *("--block-size", "64", "--kv-cache-memory-bytes", str(64 * 2**20)),
)
NUM_REQUESTS = 4
NUM_NEW = 6
LOADS = {
    "random": ("--random-input-len", "200", "--random-output-len", str(NUM_NEW)),
    "prefix_repetition": (
        *("--prefix-repetition-prefix-len", "192", "--prefix-repetition-suffix-len", "32"),
        *("--prefix-repetition-num-prefixes", "2"),
        *("--prefix-repetition-output-len", str(NUM_NEW)),
    ),
}
PATIENCE_S = 300


def environment(**changes: str) -> dict[str, str]:
    # The first shows /collective_rpc; engines of this process are silent, a server is not.
    own = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "INFO"}
    return os.environ | own | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"} | changes


def ended(command: Sequence[str], **changes: str) -> subprocess.CompletedProcess[str]:
    """What a command that does not come up has said."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@contextmanager
def serving(log: Path, *words: str, program: Sequence[str] = VLLM) -> Iterator[str]:
    """The address of a server that is up, until the end of the block; it ends when it is asked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*program, "serve", MODEL, *SMALL, "--host", "127.0.0.1", "--port", str(port), *words]
    with log.open("wb") as said:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=said, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(address, server, log)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
            raise


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"no server after {PATIENCE_S} s: {log.read_text()[-3000:]}")


def activation(address: str) -> tuple[dict[str, str], dict[str, int], dict[str, int]]:
    """Implementations, chosen and dense rows by layer, of the only worker."""
    body = json.dumps({"method": "kvloom_activation"}).encode()
    asked = Request(f"{address}/collective_rpc", body, {"Content-Type": "application/json"})
    with urlopen(asked, timeout=60) as answer:
        ((implementations, chosen, dense),) = json.load(answer)["results"]
    return implementations, chosen, dense


@pytest.mark.parametrize(
    ("words", "changes", "reason"),
    [
        (COMPOSED, {"VLLM_PLUGINS": "another"}, "the plug-in kvloom is not active: vLLM runs"),
        ((), {}, "a composed system is to be served, and none is named"),
        (
            ("--additional-config", '{"kvloom": ["algo=snapkv"]}'),
            {},
            "backend=vllm cannot run this",
        ),
    ],
    ids=["plug-in not loaded", "no composition", "not served"],
)
def test_a_server_without_the_system_does_not_come_up(words, changes, reason):
    done = ended([*VLLM, "serve", MODEL, *SMALL, "--port", "0", *WORKER, *words], **changes)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert reason in said, said[-3000:]
    assert "Application startup complete" not in said


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with serving(log, *WORKER, *COMPOSED) as address:
        assert "kvloom: quest on 6 layers" in log.read_text()
        yield address


@pytest.mark.parametrize("load", LOADS)
def test_a_served_load_completes_in_the_system_and_its_result_is_a_trial(load, server, tmp_path):
    _, before, _ = activation(server)
    command = [
        *(*VLLM, "bench", "serve", "--backend", "openai", "--base-url", server, "--model", MODEL),
        *("--dataset-name", load, *LOADS[load], "--num-prompts", str(NUM_REQUESTS)),
        *("--ignore-eos", "--seed", "1", "--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json"),
        *("--metadata", "algo=quest"),
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert bench_import([str(tmp_path / "result.json"), "--root", str(tmp_path / "store")]) == 0
    (trial,) = trials(tmp_path / "store")
    metrics = trial.record.arms["quest"].metrics
    assert trial.record.run.verdict.valid, trial.record.run.verdict.reasons
    assert (metrics["completed"].value, metrics["failed"].value) == (NUM_REQUESTS, 0)
    assert metrics["tokens_per_sample"].value == NUM_NEW
    assert metrics["median_tpot_ms"].value > 0

    implementations, after, dense = activation(server)
    assert set(implementations.values()) == {"PagedImpl"}
    assert len(after) == len(implementations) == 6
    # Of the bench's own first request and of these, the first token of each is the prompt's.
    least = NUM_REQUESTS * (NUM_NEW - 1)
    assert all(after[layer] - before.get(layer, 0) >= least for layer in after)
    assert all(dense.values())
