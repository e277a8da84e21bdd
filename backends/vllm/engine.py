"""One engine of vLLM in this process, as a backend: its scheduler, its batches, its cache."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, ClassVar

from backends.base import Backend, Request, TokenEvent, TokenScore
from backends.finish import Finish
from backends.vllm.activation import EXTENSION, Activation
from backends.vllm.compat import (
    EngineArgs,
    KVTransferConfig,
    LLMEngine,
    RequestOutputKind,
    SamplingParams,
)
from backends.vllm.composition import KEY
from backends.vllm.requests import CONTEXT
from backends.vllm.runtime import Runtime
from memory_tiers.counters import Counters
from memory_tiers.tiers.base import Tier

# What `budget=` comes to where KV is in levels: blocks may be of several requests.
SHARED = "none: all requests share the fast tier by the eviction policy alone"


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What an engine is started with.

    path: of the model; dtype: as torch names it; kv_bytes: of the cache; random_weights: whether
    the folder has no weights, and vLLM makes some up; kv_transfer: which KV connector, as vLLM's
    --kv-transfer-config has it.
    """

    path: str
    dtype: str
    max_tokens: int
    max_batch: int
    chunk_tokens: int
    block_tokens: int
    kv_bytes: int
    prefix_caching: bool
    random_weights: bool = False
    kv_transfer: Mapping[str, Any] | None = None


class VllmBackend(Backend):
    """An engine without a composition is vLLM as it comes."""

    provides: ClassVar[frozenset[str]] = frozenset({"greedy", "sampling", "chunked_prefill"})

    def __init__(self, settings: EngineSettings, composed: Any | None) -> None:
        """Start; composed: what the composer makes a system of, None for vLLM alone.

        Raises ValueError where vLLM or the composition refuses, and where the plug-in does not act.
        """
        _set_environment()
        self.engine = LLMEngine.from_engine_args(_arguments(settings, composed))
        self._settings, self._is_composed = settings, composed is not None
        self._requests: dict[str, Request] = {}
        self._answers: dict[str, list[int]] = {}
        self._dense_counters = Counters()
        self._preempted: dict[str, int] = {}
        self._cached: dict[str, int] = {}
        self._peak_blocks = 0
        self._check_activation()
        if self._is_composed:
            self.engine.collective_rpc("kvloom_bind")

    @property
    def counters(self) -> Counters:  # type: ignore[override]
        """What happened since the last reset; of vLLM alone, nothing is seen."""
        runtime = self.runtime
        return self._dense_counters if runtime is None else runtime.memory.counters

    @property
    def runtime(self) -> Runtime | None:
        """Our part of the engine; None in vLLM alone, and before the first step."""
        found: Runtime | None = self.engine.collective_rpc("kvloom_runtime")[0]
        return found

    @property
    def activation(self) -> Activation:
        """What each layer runs, read back from the engine."""
        seen: Activation = self.engine.collective_rpc("kvloom_activation")[0]
        return seen

    @property
    def busy(self) -> bool:
        """See Backend."""
        return bool(self._requests)

    def submit(self, requests: Sequence[Request]) -> None:
        """See Backend."""
        for request in requests:
            if request.scored_ids:
                raise ValueError("backend=vllm scores no given tokens; use backend=transformers")
            self._requests[request.uid], self._answers[request.uid] = request, []
            self.engine.add_request(request.uid, self._prompt(request), _sampling(request))

    def step(self) -> list[TokenEvent]:
        """See Backend."""
        outputs = self.engine.step()
        now, events = perf_counter(), []
        for output in outputs:
            if output.request_id not in self._requests:
                continue
            self._cached[output.request_id] = output.num_cached_tokens or 0
            for token in output.outputs[0].token_ids:
                events.append(self._hear(output.request_id, token, now))
                if events[-1].finish is not None:
                    break
        self._look()
        return events

    def take_failures(self) -> dict[str, str]:
        """See Backend; what vLLM cannot serve it refuses when it is submitted."""
        return {}

    def take_scores(self) -> dict[str, tuple[TokenScore, ...]]:
        """See Backend."""
        return {}

    def peak_bytes(self) -> dict[str, int]:
        """See Backend."""
        peaks = {"hbm": self._peak_blocks * self._block_bytes}
        if (runtime := self.runtime) is not None:
            for tier in self._own_tiers(runtime):
                peaks[tier.name] = peaks.get(tier.name, 0) + tier.peak_bytes
            if runtime.summaries is not None:
                peaks["index"] = runtime.summaries.peak_bytes
            tables = [level.table.num_bytes() for level in runtime.memory.levels]
            peaks["page_tables"] = sum(sum(parts.values()) for parts in tables)
        return peaks

    @property
    def num_preempted(self) -> int:
        """See Backend."""
        return sum(self._preempted.values())

    def facts(self) -> dict[str, Any]:
        """See Backend."""
        cache, activation = self.engine.vllm_config.cache_config, self.activation
        tiers = [] if (runtime := self.runtime) is None else self._own_tiers(runtime)
        return {
            "tiers": {tier.name: tier.facts for tier in tiers},
            "page_tables": {},
            "preempted": self.num_preempted,
            "prompt_tokens_cached": sum(self._cached.values()),
            "block_tokens": cache.block_size,
            "num_blocks": cache.num_gpu_blocks,
            "prefix_caching": bool(cache.enable_prefix_caching),
            "implementations": activation.implementations,
            **({"budget": SHARED} if tiers else {}),
            # Of vLLM alone, rows are not seen.
            "rows_chosen": sum(activation.chosen.values()) if self._is_composed else None,
            "rows_dense": sum(activation.dense.values()) if self._is_composed else None,
        }

    def reset_counters(self) -> None:
        """See Backend."""
        self._dense_counters = Counters()
        if (runtime := self.runtime) is not None:
            runtime.memory.counters = Counters()
            runtime.num_rows.clear()

    def _own_tiers(self, runtime: Runtime) -> Sequence[Tier]:
        """Those beside vLLM's cache."""
        return runtime.memory.tiers if runtime.composition.hosting is not None else ()

    def _prompt(self, request: Request) -> dict[str, Any]:
        prompt: dict[str, Any] = {"prompt_token_ids": list(request.prompt_ids)}
        if self._is_composed and request.num_context < len(request.prompt_ids):
            # What the rows of a question have stored is not what dense rows would have.
            prompt["cache_salt"] = f"question after {request.num_context} tokens"
        return prompt

    def _hear(self, uid: str, token: int, now: float) -> TokenEvent:
        request, answer = self._requests[uid], self._answers[uid]
        answer.append(token)
        finish = _finish(request, answer)
        if finish is not None:
            del self._requests[uid], self._answers[uid]
            if finish == "stop":
                self.engine.abort_request([uid])
        return TokenEvent(uid, token, now, finish)

    def _look(self) -> None:
        """Note what the scheduler, which is in this process, has done."""
        scheduler = self.engine.engine_core.engine_core.scheduler
        for one in scheduler.requests.values():
            if one.num_preemptions:
                self._preempted[one.request_id] = one.num_preemptions
        pool = scheduler.kv_cache_manager.block_pool
        used = pool.num_gpu_blocks - pool.get_num_free_blocks() - 1
        self._peak_blocks = max(self._peak_blocks, used)

    @property
    def _block_bytes(self) -> int:
        layers = self.engine.vllm_config.compilation_config.static_forward_context.values()
        return sum(one.kv_cache[:1].nbytes for one in layers)

    def _check_activation(self) -> None:
        """A plug-in that failed to load is told by a line in vLLM's log, and vLLM goes on."""
        if (seen := self.activation).is_ours != self._is_composed:
            kinds = ", ".join(sorted(set(seen.implementations.values())))
            raise ValueError(
                f"the plug-in {KEY} is {'not active' if self._is_composed else 'active'}: vLLM "
                f"runs {kinds}; see its log, and VLLM_PLUGINS"
            )


def _set_environment() -> None:
    """What vLLM looks at when an engine starts; only of engines that the harness starts."""
    # An engine in a process of its own would keep its counters to itself.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Threads are bound by who starts this process, as for every other backend.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # Its lines about an engine's start, at INFO, would stand before every table.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def _arguments(settings: EngineSettings, composed: Any | None) -> Any:
    return EngineArgs(
        model=settings.path,
        skip_tokenizer_init=True,
        dtype=settings.dtype,
        load_format="dummy" if settings.random_weights else "auto",
        seed=0,
        enforce_eager=True,
        max_model_len=settings.max_tokens,
        max_num_seqs=settings.max_batch,
        max_num_batched_tokens=max(settings.chunk_tokens, settings.max_batch),
        block_size=settings.block_tokens,
        kv_cache_memory_bytes=settings.kv_bytes,
        enable_prefix_caching=settings.prefix_caching,
        async_scheduling=False,
        # What a connector did is told by vLLM's own metrics alone.
        disable_log_stats=settings.kv_transfer is None,
        kv_transfer_config=None
        if settings.kv_transfer is None
        else KVTransferConfig(**settings.kv_transfer),
        use_tqdm_on_load=False,
        generation_config="vllm",
        worker_extension_cls=EXTENSION,
        additional_config={} if composed is None else {KEY: composed},
    )


def _sampling(request: Request) -> Any:
    return SamplingParams(
        temperature=request.temperature,
        seed=request.seed,
        max_tokens=request.max_new_tokens,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args={KEY: {CONTEXT: request.num_context}},
    )


def _finish(request: Request, answer: list[int]) -> Finish | None:
    if answer[-1] in request.stop_ids or (request.ends is not None and request.ends(answer)):
        return "stop"
    return "length" if len(answer) == request.max_new_tokens else None
