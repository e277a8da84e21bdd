"""Attention of a chunk by a pattern: only the blocks that it chooses are computed.

Where the pattern looks at keys, the keys of all pages before the chunk are read once to choose;
then the values (and the keys, where no choice needed them) of pages that some head chose. One
layer's keys and values of one sequence lie in working memory meanwhile, whatever tier they are in.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from backends.attention.base import AttentionKernel
from backends.attention.blocks import count_pairs
from backends.batch import Batch
from memory_tiers.manager import CacheManager
from sparse_algos.pattern import BlockPlan, Chunk, PrefillPattern

KEYS, VALUES, BOTH, NOTHING = slice(0, 1), slice(1, 2), slice(0, 2), slice(0, 0)


@dataclass(frozen=True)
class PatternAttention:
    """Every row of the chunk sees itself and what the pattern chooses of what came before."""

    memory: CacheManager
    kernel: AttentionKernel
    pattern: PrefillPattern

    def attend(
        self,
        layer: int,
        batch: Batch,
        query_MHD: Tensor,
        key_MKD: Tensor,
        value_MKD: Tensor,
        scale: float,
    ) -> Tensor:
        """Rows [M, H, D] of a chunk whose keys and values are stored already."""
        past, num_kv_heads = batch.longest - batch.new, key_MKD.shape[1]
        query_KGMD = query_MHD.unflatten(1, (num_kv_heads, -1)).permute(1, 2, 0, 3)
        new_2KMD = torch.stack((key_MKD, value_MKD)).transpose(1, 2)
        kv_2KTD = new_2KMD.new_empty(
            (2, num_kv_heads, self._room(batch.longest), new_2KMD.shape[3])
        )
        every_KP = torch.ones(num_kv_heads, self._pages(past), dtype=torch.bool)
        before, rest = (KEYS, VALUES) if self.pattern.reads_keys else (NOTHING, BOTH)
        self._read(layer, batch, every_KP, before, kv_2KTD)
        _put(kv_2KTD, new_2KMD, past)
        chunk = Chunk(query_KGMD, kv_2KTD[0], batch.longest, scale)
        plan = self.pattern.plan(chunk)
        self._read(layer, batch, self._wanted(plan, past, num_kv_heads), rest, kv_2KTD)
        _put(kv_2KTD, new_2KMD, past)
        self._count(plan, past, batch.new)
        out_KGMD = self.kernel.prefill_blocks(plan, chunk, kv_2KTD[1])
        return out_KGMD.permute(2, 0, 1, 3).flatten(1, 2)

    def _pages(self, num_tokens: int) -> int:
        return -(-num_tokens // self.memory.geometry.page_tokens)

    def _room(self, num_tokens: int) -> int:
        """Tokens that fill whole pages, and whole blocks."""
        size = self.pattern.block_tokens
        pages = self._pages(num_tokens) * self.memory.geometry.page_tokens
        return max(pages, -(-num_tokens // size) * size)

    def _read(
        self, layer: int, batch: Batch, wanted_KP: Tensor, parts: slice, into_2KTD: Tensor
    ) -> None:
        """Copy keys, values or both of wanted pages to their tokens, and count what was read."""
        if parts == NOTHING:
            return
        geometry, count = self.memory.geometry, self.memory.counters.current
        num_tokens = wanted_KP.shape[1] * geometry.page_tokens
        into_2KPSD = into_2KTD[parts, :, :num_tokens].unflatten(2, (-1, geometry.page_tokens))
        head_N, page_N = wanted_KP.nonzero(as_tuple=True)
        id_N = batch.pages(layer, 0, wanted_KP.shape[1])[head_N, page_N]
        for start, stop in self.memory.waves(len(id_N)):
            frames_N = self.memory.fetch(id_N[start:stop]).frames_N
            read_N2SD = self.memory.pool_FPSD[:, parts][frames_N]
            into_2KPSD[:, head_N[start:stop], page_N[start:stop]] = read_N2SD.transpose(0, 1)
        count.pages_read += len(id_N)
        count.bytes_read += len(id_N) * geometry.page_bytes * len(into_2KPSD) // 2

    def _wanted(self, plan: BlockPlan, past: int, num_kv_heads: int) -> Tensor:
        """Pages before the chunk that hold a key which some query head attends, bool [K, P]."""
        tokens_HT = plan.blocks_HIP.any(1).repeat_interleave(plan.block_tokens, 1)
        if (alone_HIC := plan.alone_HIC()) is not None and plan.columns_HC is not None:
            tokens_HT.scatter_(
                1, plan.columns_HC, alone_HIC.any(1) | tokens_HT.gather(1, plan.columns_HC)
            )
        tokens_KT = tokens_HT.unflatten(0, (num_kv_heads, -1)).any(1)[:, :past]
        size = self.memory.geometry.page_tokens
        return pad(tokens_KT, (0, -past % size)).unflatten(1, (-1, size)).any(2)

    def _count(self, plan: BlockPlan, past: int, num_rows: int) -> None:
        pairs, count = count_pairs(plan, past, num_rows), self.memory.counters.current
        count.pairs_computed += pairs.computed
        count.pairs_causal += pairs.causal


def _put(kv_2KTD: Tensor, new_2KMD: Tensor, past: int) -> None:
    """The chunk's own keys and values, and zeros behind them."""
    stop = past + new_2KMD.shape[2]
    kv_2KTD[:, :, past:stop] = new_2KMD
    kv_2KTD[:, :, stop:] = 0
