"""Attention of a chunk by the blocks of a plan: what is not chosen is neither read nor computed."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from backends.attention.base import Attended, AttentionKernel, merge
from sparse_algos.pattern import BlockPlan, Chunk


class Pairs(NamedTuple):
    """Pairs of a row and a key, over all query heads: computed, and seen by dense attention."""

    computed: int
    causal: int


def count_pairs(plan: BlockPlan, past: int, num_rows: int) -> Pairs:
    """What a plan computes for rows past .. past + num_rows - 1."""
    size, (num_heads, num_query_blocks, _) = plan.block_tokens, plan.blocks_HIP.shape
    position_M = torch.arange(past, past + num_rows)
    rows_I = (position_M // size - plan.first_block).bincount(minlength=num_query_blocks)
    keys_HI = plan.before_HIP().sum(2).cpu() * size
    if (alone_HIC := plan.alone_HIC()) is not None:
        keys_HI += alone_HIC.sum(2).cpu()
    inside = int((position_M % size + 1).sum())
    return Pairs(
        int((keys_HI * rows_I).sum()) + num_heads * inside,
        num_heads * int((position_M + 1).sum()),
    )


def attend_blocks(
    kernel: AttentionKernel, plan: BlockPlan, chunk: Chunk, value_KTD: Tensor
) -> Tensor:
    """`AttentionKernel.prefill_blocks` by the kernel's other calls, a block of rows at a time."""
    query_KGMD, scale, size = chunk.query_KGMD, chunk.scale, plan.block_tokens
    (num_heads, num_groups, num_rows, _), room = query_KGMD.shape, plan.num_tokens
    key_KTD, value_KTD = chunk.key_KTD[:, :room], value_KTD[:, :room]
    front = chunk.past - plan.first_block * size
    back = plan.blocks_HIP.shape[1] * size - front - num_rows
    before_KGIP = plan.before_HIP().unflatten(0, (num_heads, num_groups))
    alone_HIC = plan.alone_HIC()
    out_KGMD = torch.empty_like(query_KGMD)
    for head in range(num_heads):
        query_GTD = pad(query_KGMD[head], (0, 0, front, back))
        query_IGBD = query_GTD.unflatten(1, (-1, size)).transpose(0, 1).contiguous()
        key_PBD, value_PBD = (one[head].unflatten(0, (-1, size)) for one in (key_KTD, value_KTD))
        blocks = slice(plan.first_block, None)
        own = _attend_own(kernel, query_IGBD, key_PBD[blocks], value_PBD[blocks], scale)
        keys = _Keys(key_PBD, value_PBD)
        columns = None
        if plan.columns_HC is not None and alone_HIC is not None:
            of_head = slice(head * num_groups, (head + 1) * num_groups)
            columns = _Columns(plan.columns_HC[of_head], alone_HIC[of_head])
        earlier = _attend_earlier(kernel, query_IGBD, keys, before_KGIP[head], columns, scale)
        out_GTD = merge(own, earlier).out.transpose(0, 1).flatten(1, 2)
        out_KGMD[head] = out_GTD[:, front : front + num_rows]
    return out_KGMD


class _Keys(NamedTuple):
    """Keys and values of one kv head by block, [P, B, D]."""

    key_PBD: Tensor
    value_PBD: Tensor


class _Columns(NamedTuple):
    """Single keys of each query head, columns_GC, and alone_GIC, which of them a block reads."""

    columns_GC: Tensor
    alone_GIC: Tensor


def _attend_own(
    kernel: AttentionKernel, query_IGBD: Tensor, key_IBD: Tensor, value_IBD: Tensor, scale: float
) -> Attended:
    """Each block of rows over its own keys, as if every block were a kv head."""
    own = kernel.prefill_causal(query_IGBD.flatten(1, 2), key_IBD, value_IBD, scale)
    return Attended(own.out.view_as(query_IGBD), own.lse.view(query_IGBD.shape[:3]))


def _attend_earlier(
    kernel: AttentionKernel,
    query_IGBD: Tensor,
    keys: _Keys,
    before_GIP: Tensor,
    columns: _Columns | None,
    scale: float,
) -> Attended:
    """Each block of rows over the chosen blocks and columns before it, which it sees whole.

    Query heads that chose the same are one call.
    """
    out_IGBD = torch.zeros_like(query_IGBD)
    lse_IGB = out_IGBD.new_full(query_IGBD.shape[:3], -torch.inf, dtype=torch.float32)
    alike_I = (before_GIP == before_GIP[:1]).all(2).all(0).tolist()
    for block, blocks in enumerate(_chosen(before_GIP)):
        together = columns is None and alike_I[block]
        for group in range(1 if together else len(blocks)):
            groups = slice(None) if together else slice(group, group + 1)
            key_ND, value_ND = (one[blocks[group]].flatten(0, 1) for one in keys)
            if columns is not None:
                at_N = columns.columns_GC[group][columns.alone_GIC[group, block]]
                key_ND, value_ND = (
                    torch.cat((one_ND, one.flatten(0, 1)[at_N]))
                    for one_ND, one in ((key_ND, keys.key_PBD), (value_ND, keys.value_PBD))
                )
            if not len(key_ND):
                continue
            query_1QD = query_IGBD[block, groups].flatten(0, 1).unsqueeze(0)
            part = kernel.prefill(query_1QD, key_ND[None], value_ND[None], None, scale)
            out_IGBD[block, groups] = part.out.view_as(out_IGBD[block, groups])
            lse_IGB[block, groups] = part.lse.view_as(lse_IGB[block, groups])
    return Attended(out_IGBD, lse_IGB)


def _chosen(before_GIP: Tensor) -> list[tuple[Tensor, ...]]:
    """The chosen blocks of each block of rows and query head, ascending."""
    before_IGP = before_GIP.transpose(0, 1)
    counts = before_IGP.sum(2)
    chosen = before_IGP.nonzero()[:, 2].split(counts.flatten().tolist())
    num_groups = counts.shape[1]
    return [chosen[at : at + num_groups] for at in range(0, len(chosen), num_groups)]
