"""Selection in plain torch: from scores to the frames that a decode step reads."""

import torch
from torch import Tensor

from backends.attention.base import SelectRule, StepInputs, StepOutcome
from memory_tiers.base import NOWHERE, TableView
from sparse_algos.scores import share_of
from sparse_algos.selection import Masks, Selection, Visible


def partitions_of(step: StepInputs) -> int:
    """Partitions of the longest row."""
    longest = int(step.num_tokens_R.max()) if len(step.num_tokens_R) else 0
    return -(-longest // step.rule.partition_size)


def select_plainly(step: StepInputs, scores_RQP: Tensor) -> StepOutcome:
    """See AttentionKernel.select; the scores are those of all partitions of the longest row."""
    page_tokens = step.pool_FPSD.shape[2]
    selection = _best(step, scores_RQP)
    seen_RT = _tokens(step, selection, scores_RQP.shape[2])
    padding = (0, -seen_RT.shape[1] % page_tokens)
    seen_RPS = torch.nn.functional.pad(seen_RT, padding).unflatten(1, (-1, page_tokens))
    slots_S = torch.arange(page_tokens, device=seen_RPS.device)
    live_RP = (seen_RPS.long() << slots_S).sum(2)
    row_N, page_N = live_RP.nonzero(as_tuple=True)
    pages_N = step.first_page_R[row_N] + page_N
    frames_N = _frames(step.table, pages_N)
    counts_R = torch.bincount(row_N, minlength=len(live_RP))
    return StepOutcome(
        attended=None,
        indptr_R1=torch.nn.functional.pad(counts_R.cumsum(0), (1, 0)),
        pages_N=pages_N,
        frames_N=frames_N,
        live_N=live_RP[row_N, page_N],
        wanted=int(seen_RT.sum()),
        missing=int((frames_N == NOWHERE).sum()),
        partitions=selection if step.trace else None,
        share_RG=_share(step, selection, scores_RQP) if step.rule.shares else None,
    )


def _best(step: StepInputs, scores_RQP: Tensor) -> Selection:
    """The partitions that each row takes."""
    rule, num_partitions = step.rule, scores_RQP.shape[2]
    visible = Visible(step.num_tokens_R, num_partitions * rule.partition_size)
    masks = visible.masks(num_partitions, rule.partition_size, rule.sinks, rule.recents)
    unknown_RP = scores_RQP.isnan().any(1) | _no_summary(step, num_partitions)
    class_RP = torch.where(unknown_RP, 1, 2).masked_fill(masks.forced_RP, 3)
    class_RP = class_RP.masked_fill(masks.absent_RP, 0)
    ranks_RP = _ranks(scores_RQP, masks, unknown_RP, rule).masked_fill(masks.forced_RP, torch.inf)
    by_rank_RP = ranks_RP.argsort(dim=1, descending=True, stable=True)
    by_class_RP = class_RP.gather(1, by_rank_RP).argsort(dim=1, descending=True, stable=True)
    columns = min(rule.columns, num_partitions)
    best_RC = by_rank_RP.gather(1, by_class_RP)[:, :columns]
    allowed_R1 = (~masks.absent_RP).sum(1, keepdim=True).clamp(max=columns)
    if step.columns_R is not None:
        allowed_R1 = torch.minimum(allowed_R1, step.columns_R.unsqueeze(1))
    valid_RC = torch.arange(columns, device=best_RC.device) < allowed_R1
    best_RC = best_RC.masked_fill(~valid_RC, num_partitions).sort(dim=1).values
    return Selection(best_RC.masked_fill(~valid_RC, NOWHERE), valid_RC)


def _share(step: StepInputs, selection: Selection, scores_RQP: Tensor) -> Tensor:
    """What each query has of the softmax of its scores in what is chosen, [R, Q]."""
    num_partitions, size = scores_RQP.shape[2], step.rule.partition_size
    has_R = -(-step.num_tokens_R // size)
    none_RP = torch.arange(num_partitions, device=has_R.device) >= has_R.unsqueeze(1)
    none_RP |= scores_RQP.isnan().any(1) | _no_summary(step, num_partitions)
    share_RQ = share_of(scores_RQP.masked_fill(none_RP.unsqueeze(1), -torch.inf), selection)
    valid_RC = selection.valid_RC
    assert valid_RC is not None
    return share_RQ.masked_fill((valid_RC.sum(1) == has_R).unsqueeze(1), 1)


def _no_summary(step: StepInputs, num_partitions: int) -> Tensor:
    """Partitions whose segment is absent, bool [R, P]."""
    segment = step.segments_NCE.shape[1]
    absent_RP = (step.directory_RW < 0).repeat_interleave(segment, 1)
    short = max(num_partitions - absent_RP.shape[1], 0)
    return torch.nn.functional.pad(absent_RP, (0, short), value=True)[:, :num_partitions]


def _ranks(scores_RQP: Tensor, masks: Masks, unknown_RP: Tensor, rule: SelectRule) -> Tensor:
    """The scores of a row's queries as one; what has none gets any number."""
    ignored_R1P = (masks.absent_RP | unknown_RP).unsqueeze(1)
    scores_RQP = scores_RQP.masked_fill(ignored_R1P, -torch.inf)
    if rule.group_reduce == "max":
        return scores_RQP.amax(1)
    if rule.group_reduce == "mean":
        return scores_RQP.mean(1)
    share_RQP = scores_RQP.softmax(-1).nan_to_num(0)
    return share_RQP.sum(1) if rule.group_reduce == "mass" else share_RQP.amax(1)


def _tokens(step: StepInputs, selection: Selection, num_partitions: int) -> Tensor:
    """Which tokens the chosen partitions hold, bool [R, T]."""
    size, chosen_RC = step.rule.partition_size, selection.partitions_RC
    chosen_RP = torch.zeros(len(chosen_RC), num_partitions + 1, device=chosen_RC.device).bool()
    # Column 0 takes the -1 of unused places.
    chosen_RP.scatter_(1, chosen_RC + 1, True)
    tokens_RT = chosen_RP[:, 1:].repeat_interleave(size, 1)
    tokens_T = torch.arange(tokens_RT.shape[1], device=chosen_RC.device)
    return tokens_RT & (tokens_T < step.num_tokens_R.unsqueeze(1))


def _frames(table: TableView, pages_N: Tensor) -> Tensor:
    """The frame of each page, int32 [N], or NOWHERE."""
    if table.bits_G is None or table.base_G is None:
        return table.cells_C[pages_N]
    bit_N1, group_N = (pages_N % 64).unsqueeze(1), pages_N // 64
    bits_N64 = table.bits_G[group_N].unsqueeze(1) >> torch.arange(64, device=pages_N.device) & 1
    before_N64 = torch.arange(64, device=pages_N.device) < bit_N1
    cell_N = table.base_G[group_N] + (bits_N64 * before_N64).sum(1)
    here_N = bits_N64.gather(1, bit_N1).squeeze(1).bool()
    return table.cells_C[cell_N.masked_fill(~here_N, 0)].masked_fill(~here_N, NOWHERE)
