"""Attention over single tokens whose logits carry a bias: what sampling retrievers read by."""

import torch
from torch import Tensor

from backends.attention.base import Attended
from backends.batch import Batch
from memory_tiers.base import waves
from memory_tiers.manager import CacheManager
from sparse_algos.selection import Selection


def attend_weighted(
    memory: CacheManager,
    layer: int,
    batch: Batch,
    query_NGD: Tensor,
    selection: Selection,
    scale: float,
) -> Attended:
    """Softmax over q.k * scale + bias of the selected tokens of each query row, in float32."""
    token_NC, bias_NGC = selection.partitions_RC, selection.bias_RGC
    assert bias_NGC is not None
    valid_NC = torch.ones_like(token_NC, dtype=torch.bool)
    if selection.valid_RC is not None:
        valid_NC = selection.valid_RC
    size, rows = memory.geometry.page_tokens, batch.query_rows(layer)
    token_NC = token_NC.masked_fill(~valid_NC, 0)
    pages_NC = rows.first_page_R.unsqueeze(1) + token_NC // size
    parts = [
        _attend(
            memory,
            query_NGD[start:stop],
            (pages_NC[start:stop], token_NC[start:stop] % size),
            bias_NGC[start:stop].masked_fill(~valid_NC[start:stop].unsqueeze(1), -torch.inf),
            scale,
        )
        for start, stop in waves(len(token_NC), _rows_at_once(memory, batch, token_NC))
    ]
    return Attended(
        torch.cat([part.out for part in parts]), torch.cat([part.lse for part in parts])
    )


def _rows_at_once(memory: CacheManager, batch: Batch, token_NC: Tensor) -> int:
    """Decode rows fit together, as the preflight made sure; those of a question may not."""
    if batch.new == 1:
        return max(1, len(token_NC))
    return max(1, memory.num_fast_frames // max(1, token_NC.shape[1]))


def _attend(
    memory: CacheManager,
    query_NGD: Tensor,
    at_NC: tuple[Tensor, Tensor],
    bias_NGC: Tensor,
    scale: float,
) -> Attended:
    pages_NC, slots_NC = at_NC
    there_NC = (bias_NGC > -torch.inf).any(dim=1)
    memory.fetch(pages_NC[there_NC].unique(), mandatory=True)
    frames_NC = memory.frames(pages_NC).clamp(min=0)
    key_NCD, value_NCD = (memory.pool_FPSD[frames_NC, part, slots_NC].float() for part in (0, 1))
    logits_NGC = (query_NGD.float() * scale) @ key_NCD.mT
    # A product with what was never written may be NaN, under a weight of 0 too.
    logits_NGC = (logits_NGC + bias_NGC).masked_fill(bias_NGC == -torch.inf, -torch.inf)
    lse_NG = logits_NGC.logsumexp(-1)
    weight_NGC = (logits_NGC - lse_NG.masked_fill(lse_NG.isneginf(), 0).unsqueeze(2)).exp()
    out_NGD = weight_NGC @ value_NCD.masked_fill(~there_NC.unsqueeze(2), 0)
    return Attended(out_NGD.to(query_NGD.dtype), lse_NG)
