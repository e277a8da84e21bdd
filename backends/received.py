"""Attention that stored tokens received: columns of the softmax, summed over the queries of a step.

Never the whole matrix: pages come in parts that the fast tier holds, queries in blocks.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from backends.batch import Batch
from memory_tiers.base import PageSelection
from memory_tiers.manager import CacheManager

# Logits of a query head that are there at one time: 4 MiB of float32, which a cache holds.
MOST_LOGITS = 1 << 20


class _Part(NamedTuple):
    """Keys of consecutive tokens from `start` on, float32 [K, T, D]."""

    start: int
    key_KTD: Tensor


class Queries(NamedTuple):
    """Queries of the rows of a step and their log-sum-exps: [N, G, D] and float32 [N, G]."""

    query_NGD: Tensor
    lse_NG: Tensor
    scale: float


def received_in_chunk(
    memory: CacheManager,
    layer: int,
    batch: Batch,
    query_MHD: Tensor,
    key_MKD: Tensor,
    scale: float,
    window: int | None,
) -> Tensor:
    """What tokens received from the last `window` queries of a dense chunk, float32 [K, G, T].

    The chunk's keys are stored; T is every token up to its end.
    """
    num_heads, last = memory.geometry.num_kv_heads, min(window or batch.new, batch.new)
    query_KGMD = query_MHD[-last:].unflatten(1, (num_heads, -1)).permute(1, 2, 0, 3)
    query_KGMD = query_KGMD.float() * scale
    lse_KGM = query_KGMD.new_full(query_KGMD.shape[:3], -torch.inf)
    for _, key_KTD in _past(memory, layer, batch):
        for rows in _blocks(last, key_KTD):
            part_KGM = (query_KGMD[:, :, rows] @ key_KTD.unsqueeze(1).mT).logsumexp(-1)
            lse_KGM[..., rows] = torch.logaddexp(lse_KGM[..., rows], part_KGM)
    own_KGT = _own(query_KGMD, key_MKD.transpose(0, 1).float(), lse_KGM)
    before_KGT = own_KGT.new_zeros(*own_KGT.shape[:2], batch.longest - batch.new)
    for start, key_KTD in _past(memory, layer, batch):
        here = slice(start, start + key_KTD.shape[1])
        for rows in _blocks(last, key_KTD):
            logits_KGMT = query_KGMD[:, :, rows] @ key_KTD.unsqueeze(1).mT
            logits_KGMT -= lse_KGM[..., rows].unsqueeze(-1)
            before_KGT[..., here] += logits_KGMT.exp_().sum(2)
    return torch.cat([before_KGT, own_KGT], -1)


def _own(query_KGMD: Tensor, key_KTD: Tensor, lse_KGM: Tensor) -> Tensor:
    """What a chunk's tokens received from its last M queries, float32 [K, G, T].

    lse_KGM: of the tokens before the chunk; those of the chunk are added to it, in place.
    """
    num_tokens, last = key_KTD.shape[1], query_KGMD.shape[2]
    at_M = torch.arange(num_tokens - last, num_tokens, device=key_KTD.device)
    own_KGT = query_KGMD.new_zeros(*query_KGMD.shape[:2], num_tokens)
    for rows in _blocks(last, key_KTD):
        # Nobody in the block sees what comes after its last row.
        seen = slice(0, num_tokens - last + rows.stop)
        logits_KGMT = query_KGMD[:, :, rows] @ key_KTD[:, seen].unsqueeze(1).mT
        future_MT = torch.arange(seen.stop, device=at_M.device) > at_M[rows].unsqueeze(1)
        most_KGM1 = logits_KGMT.masked_fill_(future_MT, -torch.inf).amax(-1, keepdim=True)
        weight_KGMT, most_KGM = logits_KGMT.sub_(most_KGM1).exp_(), most_KGM1.squeeze(-1)
        block_KGM = lse_KGM[..., rows]
        block_KGM.copy_(torch.logaddexp(block_KGM, most_KGM + weight_KGMT.sum(-1).log()))
        share_KG1M = (most_KGM - block_KGM).exp().unsqueeze(2)
        own_KGT[..., seen] += (share_KG1M @ weight_KGMT).squeeze(2)
    return own_KGT


def received_in_rows(
    memory: CacheManager,
    layer: int,
    batch: Batch,
    pages: PageSelection,
    queries: Queries,
    window: int | None,
) -> Tensor:
    """What slots received from rows of the sparse path that read `pages`, float32 [R, G, T].

    Of several rows of a sequence, the last `window` count.
    """
    size = memory.geometry.page_tokens
    num_slots = -(-batch.longest // size) * size
    num_rows, group = len(batch.rows_R), queries.query_NGD.shape[1]
    mass_RTG = queries.lse_NG.new_zeros(num_rows, num_slots, group)
    at_N = torch.arange(len(pages.indptr_R1) - 1, device=mass_RTG.device)
    at_N = at_N.repeat_interleave(pages.indptr_R1.diff())
    first_R = memory.table.first_page(layer, batch.rows_R)
    slot_S = torch.arange(size, device=mass_RTG.device)
    first = 0 if window is None else max(0, batch.new - window)
    for start, stop in memory.waves(len(pages.pages_N)):
        query_n, page_n = at_N[start:stop], pages.pages_N[start:stop]
        memory.bring(page_n.unique() if batch.new > 1 else page_n)
        key_nSD = memory.pool_FPSD[memory.frames(page_n), 0].float()
        logits_nSG = key_nSD @ queries.query_NGD[query_n].float().mT * queries.scale
        share_nSG = (logits_nSG - queries.lse_NG[query_n].unsqueeze(1)).exp()
        seen_nS = (pages.live_N[start:stop].unsqueeze(1) >> slot_S & 1).bool()
        seen_nS &= (query_n % batch.new >= first).unsqueeze(1)
        share_nSG = share_nSG.masked_fill(~seen_nS.unsqueeze(2), 0)
        row_n = query_n // batch.new
        slot_nS = (page_n - first_R[row_n]).unsqueeze(1) * size + slot_S
        mass_RTG.index_put_((row_n.unsqueeze(1), slot_nS), share_nSG, accumulate=True)
    return mass_RTG.transpose(1, 2)


def _past(memory: CacheManager, layer: int, batch: Batch) -> Iterator[_Part]:
    """All keys before a chunk, from pages."""
    size, before = memory.geometry.page_tokens, batch.longest - batch.new
    last = -(-before // size)
    step = max(1, memory.num_fast_frames // memory.geometry.num_kv_heads)
    for start in range(0, last, step):
        stop = min(start + step, last)
        pages_KP = batch.pages(layer, start, stop)
        frames_KP = memory.bring(pages_KP.flatten()).frames_N.view(pages_KP.shape)
        key_KTD = memory.pool_FPSD[frames_KP, 0].flatten(1, 2)
        yield _Part(start * size, key_KTD[:, : before - start * size].float())


def _blocks(num_rows: int, key_KTD: Tensor) -> Iterator[slice]:
    """Cut queries so that the logits of a query head of each kv head stay within bounds."""
    step = max(1, MOST_LOGITS // (key_KTD.shape[0] * key_KTD.shape[1]))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
