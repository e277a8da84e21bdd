"""The attention kernel in plain torch: any device, any dtype, the oracle of the others."""

from typing import NamedTuple

import torch
from torch import Tensor

from backends.attention.base import (
    Attended,
    AttentionKernel,
    FrameSelection,
    StepInputs,
    StepOutcome,
    merge,
)
from backends.attention.blocks import attend_blocks
from backends.attention.select_plain import partitions_of, select_plainly
from sparse_algos.pattern import BlockPlan, Chunk
from sparse_algos.scores import dot_scores

# Rows that share one look at their mask: a block of a causal prompt skips the future of its last
# row. Smaller blocks skip more, and the matrix products under them run slower.
BLOCK_ROWS = 512
# Columns seen by every row that are worth a call without a mask, and a merge.
LEAST_SHARED = 64


class Reference(AttentionKernel):
    """See AttentionKernel."""

    name = "torch"

    def decode(
        self, query_RGD: Tensor, pool_FPSD: Tensor, selection: FrameSelection, scale: float
    ) -> Attended:
        """See AttentionKernel."""
        frames_RN, seen_RT = _slots(selection, pool_FPSD.shape[2])
        pages_RNPSD = pool_FPSD[frames_RN]
        key_RTD, value_RTD = (pages_RNPSD[:, :, part].flatten(1, 2) for part in (0, 1))
        # A weight of 0 does not silence a value of NaN.
        value_RTD = value_RTD.masked_fill(~seen_RT.unsqueeze(-1), 0)
        bias_RGT = None
        if selection.bias_GV is not None:
            bias_GRT = torch.zeros(query_RGD.shape[1], *seen_RT.shape, device=seen_RT.device)
            bias_GRT[:, seen_RT] = selection.bias_GV
            bias_RGT = bias_GRT.transpose(0, 1)
        mask_R1T = seen_RT.unsqueeze(1)
        return _attend_plain(query_RGD, key_RTD, value_RTD, mask_R1T, scale, bias_RGT)

    def products(self, query_RGD: Tensor, pool_FPSD: Tensor, selection: FrameSelection) -> Tensor:
        """See AttentionKernel."""
        frames_RN, seen_RT = _slots(selection, pool_FPSD.shape[2])
        key_RTD = pool_FPSD[frames_RN, 0].flatten(1, 2)
        product_RGT = query_RGD.float() @ key_RTD.float().mT
        return product_RGT.transpose(0, 1)[:, seen_RT]

    def prefill(
        self,
        query_KMD: Tensor,
        key_KTD: Tensor,
        value_KTD: Tensor,
        mask_MT: Tensor | None,
        scale: float,
    ) -> Attended:
        """See AttentionKernel."""
        if mask_MT is None or not mask_MT.numel():
            return _attend(query_KMD, key_KTD, value_KTD, None, scale)
        blocks = [
            _attend_block(query_KBD, key_KTD, value_KTD, mask_BT, scale)
            for query_KBD, mask_BT in zip(
                query_KMD.split(BLOCK_ROWS, 1), mask_MT.split(BLOCK_ROWS), strict=True
            )
        ]
        return Attended(
            torch.cat([block.out for block in blocks], 1),
            torch.cat([block.lse for block in blocks], 1),
        )

    def prefill_causal(
        self, query_KMD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scale: float
    ) -> Attended:
        """See AttentionKernel."""
        num_rows, num_tokens = query_KMD.shape[1], key_KTD.shape[1]
        if _is_fused(query_KMD, key_KTD):
            query_HTD = query_KMD.unflatten(1, (-1, num_tokens)).flatten(0, 1)
            fused = _attend_fused(query_HTD, key_KTD, value_KTD, None, scale, is_causal=True)
            return Attended(
                fused.out.reshape(query_KMD.shape), fused.lse.reshape(query_KMD.shape[:2])
            )
        token_M1 = torch.arange(num_rows, device=key_KTD.device).unsqueeze(1) % max(1, num_tokens)
        mask_MT = token_M1 >= torch.arange(num_tokens, device=key_KTD.device)
        return self.prefill(query_KMD, key_KTD, value_KTD, mask_MT, scale)

    def prefill_blocks(self, plan: BlockPlan, chunk: Chunk, value_KTD: Tensor) -> Tensor:
        """See AttentionKernel."""
        return attend_blocks(self, plan, chunk, value_KTD)

    def score(
        self, query_RQE: Tensor, segments_NCE: Tensor, directory_RW: Tensor, num_partitions: int
    ) -> Tensor:
        """See AttentionKernel."""
        present_N = directory_RW.clamp(min=0).flatten()
        # Whole segments, one after the other: several times faster than an index of two axes.
        read_NCE = segments_NCE.index_select(0, present_N)
        read_RPE = read_NCE.view(len(directory_RW), -1, segments_NCE.shape[2])
        return dot_scores(read_RPE.narrow(1, 0, num_partitions), query_RQE)

    def select(self, step: StepInputs) -> StepOutcome:
        """See AttentionKernel."""
        num_rows, num_queries, _ = step.scoring_RQE.shape
        num_partitions, width = partitions_of(step), step.directory_RW.shape[1]
        here = min(num_partitions, width * step.segments_NCE.shape[1])
        scores_RQP = step.scoring_RQE.new_zeros(
            (num_rows, num_queries, num_partitions), dtype=torch.float32
        )
        if here:
            scores_RQP[..., :here] = self.score(
                step.scoring_RQE, step.segments_NCE, step.directory_RW, here
            )
        return select_plainly(step, scores_RQP)

    def decode_step(self, step: StepInputs) -> StepOutcome:
        """See AttentionKernel."""
        picked = self.select(step)
        if picked.missing:
            return picked
        frames = FrameSelection(picked.indptr_R1, picked.frames_N, picked.live_N)
        attended = self.decode(step.query_RGD, step.pool_FPSD, frames, step.scale)
        return picked._replace(attended=attended)


class _Padded(NamedTuple):
    """A selection with every row as long as the longest: frames_RN, and live_RN, 0 where padded."""

    frames_RN: Tensor
    live_RN: Tensor


def _padded(selection: FrameSelection) -> _Padded:
    """Lay the ragged rows side by side."""
    indptr_R1, frames_N, live_N = selection.indptr_R1, selection.frames_N, selection.live_N
    num_rows, num_frames = len(indptr_R1) - 1, len(frames_N)
    counts_R1 = indptr_R1.diff().unsqueeze(1)
    longest = int(counts_R1.max()) if num_frames else 0
    if num_frames == num_rows * longest:
        return _Padded(frames_N.view(num_rows, longest), live_N.view(num_rows, longest))
    columns_N = torch.arange(longest, device=frames_N.device)
    inside_RN = columns_N < counts_R1
    at_RN = (indptr_R1[:-1, None] + columns_N).clamp(max=num_frames - 1)
    # Padding repeats a selected frame: frame 0 may be nobody's, and is read all the same.
    return _Padded(frames_N[at_RN], live_N[at_RN].masked_fill(~inside_RN, 0))


class _Slots(NamedTuple):
    """The frames of each row, and which slots of these are live: bool [R, N * S]."""

    frames_RN: Tensor
    seen_RT: Tensor


def _slots(selection: FrameSelection, page_tokens: int) -> _Slots:
    frames_RN, live_RN = _padded(selection)
    slots_S = torch.arange(page_tokens, device=live_RN.device)
    return _Slots(frames_RN, (live_RN.unsqueeze(-1) >> slots_S & 1).bool().flatten(1))


class _Extent(NamedTuple):
    """Columns before `shared` are seen by every row, columns from `end` on by none."""

    shared: int
    end: int


def _extent(mask_BT: Tensor) -> _Extent:
    """Where a mask starts to matter, and where it stops."""
    # As bytes: torch reduces bools over ten times slower.
    bytes_BT = mask_BT.view(torch.uint8)
    zero, one = bytes_BT.new_zeros(1), bytes_BT.new_ones(1)
    shared = torch.cat([bytes_BT.amin(0), zero]).argmin()
    unseen = torch.cat([bytes_BT.amax(0).flip(0), one]).argmax()
    return _Extent(int(shared), mask_BT.shape[1] - int(unseen))


def _attend_block(
    query_KBD: Tensor, key_KTD: Tensor, value_KTD: Tensor, mask_BT: Tensor, scale: float
) -> Attended:
    """Attend with the mask applied only where rows differ."""
    shared, end = _extent(mask_BT)
    if shared < min(LEAST_SHARED, end):
        shared = 0
    body, edge = slice(0, shared), slice(shared, end)
    if shared == end:
        return _attend(query_KBD, key_KTD[:, body], value_KTD[:, body], None, scale)
    part = _attend(query_KBD, key_KTD[:, edge], value_KTD[:, edge], mask_BT[:, edge], scale)
    if not shared:
        return part
    whole = _attend(query_KBD, key_KTD[:, body], value_KTD[:, body], None, scale)
    return merge(whole, part)


def _attend(
    query_KMD: Tensor, key_KTD: Tensor, value_KTD: Tensor, mask_MT: Tensor | None, scale: float
) -> Attended:
    """Attend by the fastest way this device has."""
    if _is_fused(query_KMD, key_KTD):
        return _attend_fused(query_KMD, key_KTD, value_KTD, mask_MT, scale)
    return _attend_plain(query_KMD, key_KTD, value_KTD, mask_MT, scale)


def _is_fused(query_KMD: Tensor, key_KTD: Tensor) -> bool:
    """Whether torch's CPU operator serves: it ends the process where nothing is to attend."""
    return query_KMD.device.type == "cpu" and bool(query_KMD.numel() and key_KTD.numel())


def _attend_fused(
    query_HMD: Tensor,
    key_KTD: Tensor,
    value_KTD: Tensor,
    mask_MT: Tensor | None,
    scale: float,
    is_causal: bool = False,
) -> Attended:
    """Attend by torch's CPU operator, which takes an additive mask and loses the empty rows."""
    bias_MT = None
    if mask_MT is not None:
        bias_MT = query_HMD.new_zeros(mask_MT.shape).masked_fill_(~mask_MT, -torch.inf)
    out_1HMD, lse_1HM = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *(_dense(each).unsqueeze(0) for each in (query_HMD, key_KTD, value_KTD)),
        attn_mask=None if bias_MT is None else bias_MT.expand(1, 1, -1, -1),
        is_causal=is_causal,
        scale=scale,
    )
    lse_HM = lse_1HM.squeeze(0).float()
    if mask_MT is not None:
        lse_HM = lse_HM.masked_fill(mask_MT.view(torch.uint8).amax(1) == 0, -torch.inf)
    return Attended(out_1HMD.squeeze(0), lse_HM)


def _dense(tensor: Tensor) -> Tensor:
    """The same values, with the last axis contiguous: the fused operator takes it for granted."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _attend_plain(
    query_BMD: Tensor,
    key_BTD: Tensor,
    value_BTD: Tensor,
    mask_BMT: Tensor | None,
    scale: float,
    bias_BMT: Tensor | None = None,
) -> Attended:
    """Attend in float32; mask_BMT may broadcast, keys under it may be NaN, values may not."""
    scores_BMT = (query_BMD.float() * scale) @ key_BTD.float().mT
    if bias_BMT is not None:
        scores_BMT += bias_BMT
    if mask_BMT is not None:
        scores_BMT.masked_fill_(~mask_BMT, -torch.inf)
    lse_BM = scores_BMT.logsumexp(-1)
    offset_BM1 = lse_BM.masked_fill(lse_BM.isneginf(), 0).unsqueeze(-1)
    out_BMD = scores_BMT.sub_(offset_BM1).exp_() @ value_BTD.float()
    return Attended(out_BMD.to(query_BMD.dtype), lse_BM)
