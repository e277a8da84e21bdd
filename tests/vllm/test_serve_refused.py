"""`kvloom-vllm serve` serves the composed system, or ends with code 2 and one line of reason."""

import json
import subprocess
from urllib.request import Request, urlopen

import pytest

from tests.vllm.engines import MODEL, ROOT
from tests.vllm.test_serve import (
    COMPOSED,
    OURS,
    PATIENCE_S,
    SMALL,
    activation,
    environment,
    serving,
)

pytestmark = pytest.mark.slow

HOSTED = ("tier=hbm+cpu", "tier.cpu.size=1MiB")


def composed(*words: str) -> tuple[str, ...]:
    return ("--additional-config", json.dumps({"kvloom": list(words)}))


REFUSED = {
    "not served": (
        composed("algo=snapkv"),
        {},
        ("algo=snapkv: algo.evict drops tokens for good", "use algo=quest"),
    ),
    "block size": (
        (*COMPOSED, "--block-size", "40"),
        {},
        ("a block of vLLM has 40 tokens", "partition.page_tokens=16", "--block-size"),
    ),
    "plug-in shut out": (
        COMPOSED,
        {"VLLM_PLUGINS": "another"},
        ("VLLM_PLUGINS=another shuts the plug-in kvloom out", "add it there"),
    ),
    "all at once": (
        (*composed("algo=infllm"), "--worker-cls", "a.b"),
        {},
        ("--worker-cls=a.b", "leave it out", "queries after them"),
    ),
    # What only the engine knows: how many blocks there are.
    "by the engine": (
        composed("algo=quest", *HOSTED),
        {},
        ("tier.cpu.size is 1024KiB", "--num-gpu-blocks-override"),
    ),
}


@pytest.mark.parametrize(("words", "changes", "said"), REFUSED.values(), ids=REFUSED)
def test_a_refused_server_ends_with_code_2_and_the_reason_as_its_last_line(words, changes, said):
    small = SMALL if "--block-size" not in words else SMALL[: SMALL.index("--block-size")]
    done = subprocess.run(
        [*OURS, "serve", MODEL, *small, "--port", "0", *words],
        cwd=ROOT,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr[-3000:]
    assert lines[-1].startswith("kvloom: ")
    assert [one for one in said if one not in lines[-1]] == []
    assert sum(line.startswith("kvloom: ") for line in lines) == 1
    assert "Application startup complete" not in done.stdout + done.stderr


def test_a_server_that_is_not_refused_answers_and_ends_when_it_is_asked(tmp_path):
    log = tmp_path / "log.txt"
    with serving(log, *COMPOSED, program=OURS) as address:
        body = json.dumps({"model": MODEL, "prompt": [5] * 100, "max_tokens": 8}).encode()
        asked = Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
        with urlopen(asked, timeout=60) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == 8
        implementations, chosen, _ = activation(address)
        assert set(implementations.values()) == {"PagedImpl"}
        assert min(chosen.values()) == 7
    assert not [line for line in log.read_text().splitlines() if line.startswith("kvloom: ")]
