"""`kvloom-vllm serve` serves the composed system, or ends with code 2 and one line of reason."""

import json
from collections.abc import Sequence
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.vllm.engines import BLOCK_BYTES, MODEL, offloading, random_prompt
from tests.vllm.test_serve import (
    COMPOSED,
    OURS,
    SMALL,
    activation,
    ended,
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
    done = ended([*OURS, "serve", MODEL, *small, "--port", "0", *words], **changes)
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr[-3000:]
    assert lines[-1].startswith("kvloom: ")
    assert [one for one in said if one not in lines[-1]] == []
    assert sum(line.startswith("kvloom: ") for line in lines) == 1
    assert "Application startup complete" not in done.stdout + done.stderr


def answer(address: str, prompt: Sequence[int]) -> str:
    body = json.dumps({"model": MODEL, "prompt": prompt, "max_tokens": 8, "temperature": 0})
    headers = {"Content-Type": "application/json"}
    asked = Request(f"{address}/v1/completions", body.encode(), headers)
    with urlopen(asked, timeout=60) as told:
        said = json.load(told)
    assert said["usage"]["completion_tokens"] == 8
    return said["choices"][0]["text"]


def hits_in_host_memory(address: str) -> float:
    with urlopen(f"{address}/metrics", timeout=60) as told:
        lines = told.read().decode().splitlines()
    found = [one for one in lines if one.startswith("vllm:external_prefix_cache_hits_total")]
    return sum(float(one.split()[-1]) for one in found)


def test_a_server_that_is_not_refused_answers_and_ends_when_it_is_asked(tmp_path):
    log = tmp_path / "log.txt"
    # Room for two prompts; what has no room is kept in host memory.
    room = ("--kv-cache-memory-bytes", str(32 * BLOCK_BYTES))
    connector = ("--kv-transfer-config", json.dumps(offloading(1)))
    prompts = [random_prompt(900, seed) for seed in range(4)]
    with serving(log, *COMPOSED, *room, *connector, program=OURS) as address:
        first = [answer(address, prompt) for prompt in prompts]
        assert [answer(address, prompt) for prompt in prompts] == first
        assert hits_in_host_memory(address) > 900
        implementations, chosen, _ = activation(address)
        assert set(implementations.values()) == {"PagedImpl"}
        assert min(chosen.values()) == 2 * len(prompts) * 7
    with pytest.raises(URLError):
        urlopen(f"{address}/health", timeout=5)
    assert not [line for line in log.read_text().splitlines() if line.startswith("kvloom: ")]
