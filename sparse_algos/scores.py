"""What scores are made of: dot products with summaries, and one score for a group of queries."""

from typing import Literal

import torch
from torch import Tensor

from sparse_algos.selection import Selection

GroupReduce = Literal["max", "mean", "mass", "peak"]


def dot_scores(summary_RPE: Tensor, query_RQE: Tensor) -> Tensor:
    """Dot products of summary vectors with queries of one dtype, float32 [R, Q, P]."""
    # Summaries first: torch streams them once, twice as fast as the other order.
    scores_RPQ = torch.matmul(summary_RPE, query_RQE.transpose(1, 2))
    return scores_RPQ.transpose(1, 2).float()


def reduce_group(scores_RGP: Tensor, how: GroupReduce) -> Tensor:
    """One score per row and partition, [R, P], from those of the query heads of a kv head.

    max and mean: of the scores; mass and peak: sum and maximum of each head's softmax of them.
    """
    if how == "max":
        return scores_RGP.amax(dim=1)
    if how == "mean":
        return scores_RGP.mean(dim=1)
    # A row whose partitions are all masked would softmax to NaN; it selects nothing instead.
    share_RGP = torch.nan_to_num(scores_RGP.softmax(dim=-1))
    mass_RP = share_RGP.sum(dim=1) if how == "mass" else share_RGP.amax(dim=1)
    return mass_RP.masked_fill(torch.isneginf(scores_RGP[:, 0]), -torch.inf)


def share_of(scores_RGP: Tensor, selection: Selection) -> Tensor:
    """What the selected partitions have of each head's softmax, [R, G]; 1 where all are -inf."""
    chosen_RC, valid_RC = selection.partitions_RC, selection.valid_RC
    if valid_RC is not None:
        chosen_RC = chosen_RC.masked_fill(~valid_RC, 0)
    at_RGC = chosen_RC.unsqueeze(1).expand(-1, scores_RGP.shape[1], -1)
    log_RG1 = scores_RGP.logsumexp(dim=2, keepdim=True)
    share_RGC = (scores_RGP.gather(2, at_RGC) - log_RG1).exp()
    if valid_RC is not None:
        share_RGC = share_RGC.masked_fill(~valid_RC.unsqueeze(1), 0)
    return share_RGC.sum(dim=2).masked_fill(log_RG1.squeeze(2).isneginf(), 1)
