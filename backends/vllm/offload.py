"""Blocks of vLLM's cache in host memory beside it, for its OffloadingConnector.

vLLM decides which blocks are kept, and until when; on GPUs its own worker copies them, on CPUs the
one here. Where the system is composed, what is copied with a block are the summaries of its keys.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Any

from psutil import virtual_memory
from torch import Tensor

from backends.vllm.compat import (
    current_platform,
    get_current_vllm_config_or_none,
    stock_offloading_spec,
    stock_offloading_worker,
    transfer_result,
)
from backends.vllm.compose import is_composed
from backends.vllm.moves import Move, plan_moves
from backends.vllm.reason import told
from memory_tiers.copies import copy_frames
from memory_tiers.huge import huge_empty


class HostOffloadingSpec(stock_offloading_spec()):  # type: ignore[misc]
    """vLLM's own but for the worker on CPUs; named by `spec_name` and `spec_module_path`."""

    _on_host: "HostWorker | None" = None

    def get_worker(self, kv_caches: Any) -> Any:
        """See vLLM's contract."""
        if not current_platform.is_cpu():
            return super().get_worker(kv_caches)
        if self._on_host is None:
            with told():
                self._check_memory()
            parts = Parts(kv_caches, get_current_vllm_config_or_none())
            self._on_host = HostWorker(parts, self.blocks_per_chunk, self.num_chunks)
        return self._on_host

    def _check_memory(self) -> None:
        """It is taken as blocks come, and the machine may have less."""
        asked, present = int(self.extra_config["cpu_bytes_to_use"]), virtual_memory().total
        if asked > present:
            raise ValueError(
                f"cpu_bytes_to_use={asked} of the KV connector is more than the {present} bytes of "
                "this machine; lower it"
            )


class Parts:
    """What a block consists of: rows of several tensors, in each the one of the block's number."""

    def __init__(self, kv_caches: Any, vllm_config: Any) -> None:
        """Take hold of the caches; of summaries when they are there, after the first step."""
        self._groups = [
            [kv_caches.tensors[ref.tensor_idx].tensor for ref in refs]
            for refs in kv_caches.group_data_refs
        ]
        composed = is_composed(vllm_config)
        self._layers = vllm_config.compilation_config.static_forward_context if composed else {}

    @property
    def num_groups(self) -> int:
        """Groups of layers whose blocks have numbers of their own."""
        return len(self._groups)

    def of(self, group: int) -> list[Tensor]:
        """Of the blocks of a group, [num_blocks, bytes]."""
        runtime = next((layer.impl.runtime for layer in self._layers.values()), None)
        if runtime is None or runtime.summaries is None:
            return self._groups[group]
        return self._groups[group] + runtime.summaries.by_block()


class HostWorker(stock_offloading_worker()):  # type: ignore[misc]
    """Copies blocks to host memory and back, one job after the other, while steps go on."""

    def __init__(self, parts: Parts, chunk_blocks: int, num_chunks: int) -> None:
        """Room for `num_chunks` chunks of so many blocks, taken as it is written."""
        self._parts = parts
        self._chunk_blocks = chunk_blocks
        self._num_places = num_chunks * chunk_blocks
        self._kept: list[list[Tensor]] = [[] for _ in range(parts.num_groups)]
        # One thread: what is loaded was stored before.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kvloom-offload")
        self._jobs: dict[int, Future[Any]] = {}

    def submit_store(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """See vLLM's contract."""
        return self._submit(job_id, src_spec, dst_spec, to_host=True)

    def submit_load(self, job_id: int, src_spec: Any, dst_spec: Any) -> bool:
        """See vLLM's contract."""
        return self._submit(job_id, dst_spec, src_spec, to_host=False)

    def get_finished(self) -> list[Any]:
        """See vLLM's contract."""
        done = [job for job, future in self._jobs.items() if future.done()]
        return [self._jobs.pop(job).result() for job in done]

    def wait(self, job_ids: set[int]) -> None:
        """See vLLM's contract."""
        for job in job_ids & self._jobs.keys():
            self._jobs[job].result()

    def shutdown(self) -> None:
        """See vLLM's contract."""
        self._thread.shutdown()

    def _submit(self, job: int, blocks: Any, chunks: Any, *, to_host: bool) -> bool:
        moves = list(plan_moves(blocks, chunks.block_ids, self._chunk_blocks))
        self._jobs[job] = self._thread.submit(self._copy, job, moves, to_host)
        return True

    def _copy(self, job: int, moves: Sequence[Move], to_host: bool) -> Any:
        started, num_bytes = perf_counter(), 0
        for group, blocks_N, places_N in moves:
            for here, kept in self._pairs(group):
                if to_host:
                    copy_frames(here, blocks_N, kept, places_N)
                else:
                    copy_frames(kept, places_N, here, blocks_N)
                num_bytes += len(blocks_N) * here.stride(0) * here.itemsize
        return transfer_result(job, num_bytes, perf_counter() - started)

    def _pairs(self, group: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Each part of blocks, and its place in host memory."""
        parts, kept = self._parts.of(group), self._kept[group]
        for one in parts[len(kept) :]:
            kept.append(huge_empty((self._num_places, *one.shape[1:]), one.dtype, one.device))
        return zip(parts, kept, strict=True)
