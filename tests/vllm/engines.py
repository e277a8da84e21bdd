"""Engines of vLLM over the bundled model, and what they say; skips where there is no vLLM."""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from backends.base import Request
from backends.vllm.versions import installed_version, refusal_of

if (_reason := refusal_of(installed_version())) is not None:
    pytest.skip(f"{_reason}; make test-vllm runs these", allow_module_level=True)

from backends.vllm.compat import SamplingParams
from backends.vllm.engine import EngineSettings, VllmBackend
from backends.vllm.requests import CONTEXT
from harness.tasks.ruler import Ruler
from harness.workload import make_workload
from tests.laws.configs import composed

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "models" / "bundled")
BLOCK = 64
MAX_TOKENS = 2048
# Of a block of the bundled model: 6 layers, 2 kv heads, keys and values of 64 floats.
BLOCK_BYTES = 6 * 2 * BLOCK * 2 * 64 * 4
# Of one whose KV is elsewhere: a float of each head and slot.
DIGEST_BYTES = 6 * 2 * BLOCK * 4
HOST_BYTES = 200 * BLOCK_BYTES
HOSTED = "tier=hbm+cpu"
FULL = MAX_TOKENS
TIGHT = 128


class Said(NamedTuple):
    """Tokens of an answer, and the log-probability of each."""

    tokens: list[int]
    log_probabilities: list[float]


@cache
def engine_of(
    *overrides: str, num_blocks: int = 200, chunk_blocks: int | None = None, **changes: Any
) -> VllmBackend:
    """An engine; overrides: of the composition, none for vLLM as it comes.

    chunk_blocks: of what is kept in host memory too, which nothing is without it. All engines are
    kept: vLLM takes down what engines of a process share with the first that goes.
    """
    block_bytes = DIGEST_BYTES if HOSTED in overrides else BLOCK_BYTES
    settings = {
        "path": MODEL,
        "dtype": "float32",
        "max_tokens": MAX_TOKENS,
        "max_batch": 8,
        "chunk_tokens": 256,
        "block_tokens": BLOCK,
        "kv_bytes": num_blocks * block_bytes,
        "prefix_caching": True,
    }
    if chunk_blocks is not None:
        settings["kv_transfer"] = offloading(chunk_blocks)
    asked = composed(*overrides) if overrides else None
    return VllmBackend(EngineSettings(**settings | changes), asked)


def offloading(chunk_blocks: int) -> dict[str, Any]:
    """A KV connector that keeps blocks in host memory."""
    return {
        "kv_connector": "OffloadingConnector",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {
            "spec_name": "HostOffloadingSpec",
            "spec_module_path": "backends.vllm.offload",
            "cpu_bytes_to_use": HOST_BYTES,
            "blocks_per_chunk": chunk_blocks,
        },
    }


@lru_cache
def ruler_prompts(length: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Prompts that the bundled model answers, of about `length` tokens each."""
    from backends.transformers.loading import load_tokenizer

    arguments = {k: v for k, v in composed()["task"].items() if not k.startswith("_")}
    arguments |= {"length": length, "num_samples": -(-count // 3)}
    arguments["tasks"] = tuple(arguments["tasks"])
    workload = make_workload(
        Ruler(**arguments),
        load_tokenizer(MODEL),
        protocol="question_dense",
        temperature=0.0,
        stop_ids=frozenset(),
    )
    return tuple(item.request.prompt_ids for item in workload.items[:count])


def request(
    uid: str, prompt_ids: Sequence[int], num_question: int = 0, num_new: int = 20
) -> Request:
    """A request whose last tokens are the question."""
    return Request(
        uid=uid,
        prompt_ids=tuple(prompt_ids),
        num_context=len(prompt_ids) - num_question,
        max_new_tokens=num_new,
        stop_ids=frozenset(),
    )


def random_prompt(length: int, seed: int) -> tuple[int, ...]:
    """Any tokens of the bundled model."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, 4500, (length,), generator=generator).tolist())


def answers(backend: VllmBackend, wanted: Iterable[Request]) -> dict[str, list[int]]:
    """Everything at once, to the end."""
    wanted = list(wanted)
    said: dict[str, list[int]] = {one.uid: [] for one in wanted}
    backend.submit(wanted)
    while backend.busy:
        for event in backend.step():
            said[event.uid].append(event.token_id)
    return said


def forget_prefixes(backend: VllmBackend) -> None:
    """No request finds a prefix in the cache."""
    assert backend.engine.reset_prefix_cache()


def scored(backend: VllmBackend, prompt_ids: Sequence[int], num_question: int = 0) -> Said:
    """A greedy answer and its log-probabilities, past the contract of a backend."""
    params = SamplingParams(
        temperature=0,
        max_tokens=16,
        logprobs=1,
        ignore_eos=True,
        detokenize=False,
        extra_args={"kvloom": {CONTEXT: len(prompt_ids) - num_question}},
    )
    backend.engine.add_request("scored", {"prompt_token_ids": list(prompt_ids)}, params)
    while backend.engine.has_unfinished_requests():
        outputs = backend.engine.step()
    best = outputs[0].outputs[0]
    found = zip(best.token_ids, best.logprobs, strict=True)
    return Said(list(best.token_ids), [chosen[token].logprob for token, chosen in found])
