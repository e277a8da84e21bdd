"""FlexPrefill (Lai et al., ICLR 2025, arXiv:2502.20766): a pattern per head, chosen by the prompt.

A head whose pooled estimate agrees with its last rows takes the blocks of most estimated mass, the
others take vertical and slash lines, as many as hold a share of the mass. Distances are counted in
blocks from the row's own, where the paper's code counts from the end of the prompt.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sparse_algos.checks import check_count, check_share
from sparse_algos.coverage import covering, num_covering
from sparse_algos.lines import Lines, block_sums, lines_of
from sparse_algos.pattern import BlockPlan, Chunk, PrefillPattern


@dataclass(frozen=True, kw_only=True)
class FlexPrefill(PrefillPattern):
    """Vertical-slash or query-aware blocks, whichever suits the head.

    gamma: the share of the mass that is kept; tau: the divergence (square root of Jensen-Shannon)
    below which a head is query-aware; least_tokens: that the lines of each direction take at least.
    """

    gamma: float
    tau: float
    least_tokens: int

    def __post_init__(self) -> None:
        """See PrefillPattern."""
        super().__post_init__()
        check_count("algo.prefill.least_tokens", self.least_tokens, least=1)
        check_share("algo.prefill.gamma", self.gamma, of="the attention mass")
        if self.tau != 0:
            check_share("algo.prefill.tau", self.tau, of="the divergence of two distributions")

    def keeping_all(self) -> Self:
        """See PrefillPattern."""
        return replace(self, least_tokens=2**40)

    def choose(self, chunk: Chunk) -> BlockPlan:
        """Blocks per head, by its own pattern."""
        size = self.block_tokens
        lines = lines_of(chunk, size)
        pooled_KPD = pooled(chunk.key_KTD[:, : chunk.num_tokens], size)
        aware_H = self._is_query_aware(chunk, pooled_KPD, lines)
        blocks_HIP = self._lines(chunk, lines, aware_H)
        if aware_H.any():
            blocks_HIP |= self._query_aware(chunk, pooled_KPD) & aware_H.view(-1, 1, 1)
        return BlockPlan(size, blocks_HIP)

    def _is_query_aware(self, chunk: Chunk, pooled_KPD: Tensor, lines: Lines) -> Tensor:
        """Whether pooled keys tell where the mean of the last rows attends, bool [H]."""
        mean_KGD = chunk.query_KGMD[:, :, -lines.num_rows :].float().mean(2) * chunk.scale
        guess_HP = (mean_KGD @ pooled_KPD.mT).softmax(-1).flatten(0, 1)
        truth_HP = block_sums(lines.columns_HT, self.block_tokens) / lines.num_rows
        return root_js_divergence(guess_HP, truth_HP) < self.tau

    def _lines(self, chunk: Chunk, lines: Lines, aware_H: Tensor) -> Tensor:
        """Vertical and slash lines of blocks, bool [H, I, P]."""
        columns_HP = self._strongest(lines.columns_HT / lines.num_rows, aware_H)
        distances_HP = self._strongest(lines.distances_HT / lines.num_rows, aware_H)
        block_P = torch.arange(columns_HP.shape[1], device=columns_HP.device)
        gap_IP = block_P[chunk.past // self.block_tokens :].unsqueeze(1) - block_P
        slash_HIP = distances_HP[:, gap_IP.clamp(min=0)] & (gap_IP >= 0)
        return slash_HIP | columns_HP.unsqueeze(1)

    def _strongest(self, mass_HT: Tensor, aware_H: Tensor) -> Tensor:
        """Blocks of a line's mass, the first one among them, bool [H, P]."""
        size = self.block_tokens
        mass_HP = block_sums(mass_HT, size)
        num_blocks = mass_HP.shape[1]
        least = min(-(-self.least_tokens // size), num_blocks)
        count_H = (num_covering(mass_HT, self.gamma) // size + 1).clamp(least, num_blocks)
        count_H = count_H.masked_fill(aware_H, least)
        mass_HP[:, 0] = torch.inf
        order_HP = mass_HP.argsort(dim=1, descending=True, stable=True)
        taken_HP = torch.arange(num_blocks, device=mass_HT.device) < count_H.unsqueeze(1)
        return torch.zeros_like(taken_HP).scatter_(1, order_HP, taken_HP)

    def _query_aware(self, chunk: Chunk, pooled_KPD: Tensor) -> Tensor:
        """The blocks of most mass over the whole map of pooled rows and keys, bool [H, I, P]."""
        query_KGID = pooled(chunk.query_KGMD, self.block_tokens, chunk.past) * chunk.scale
        logits_HIP = (query_KGID @ pooled_KPD.mT.unsqueeze(1)).flatten(0, 1)
        num_query_blocks, num_blocks = logits_HIP.shape[1:]
        future_IP = torch.ones_like(logits_HIP[0], dtype=torch.bool).triu(
            num_blocks - num_query_blocks + 1
        )
        mass_HIP = logits_HIP.masked_fill(future_IP, -torch.inf).softmax(-1)
        needed_H = mass_HIP.new_full((len(mass_HIP),), self.gamma * num_query_blocks)
        return covering(mass_HIP.flatten(1), needed_H).view_as(mass_HIP)


def pooled(tensor_XTD: Tensor, block_tokens: int, past: int = 0) -> Tensor:
    """Means over blocks of the grid, float32 [..., P, D]; the tokens begin at `past`."""
    num_tokens, before = tensor_XTD.shape[-2], past % block_tokens
    after = -(before + num_tokens) % block_tokens
    padded_XTD = torch.nn.functional.pad(tensor_XTD, (0, 0, before, after))
    sums_XPD = padded_XTD.unflatten(-2, (-1, block_tokens)).sum(-2, dtype=torch.float32)
    counts_P1 = torch.full_like(sums_XPD[..., :1], block_tokens)
    counts_P1[..., 0, :] -= before
    counts_P1[..., -1, :] -= after
    return sums_XPD / counts_P1


def root_js_divergence(one_NP: Tensor, other_NP: Tensor) -> Tensor:
    """The square root of the Jensen-Shannon divergence of distributions, in nats, [N]."""
    middle_NP = (one_NP + other_NP) / 2
    halves = (
        torch.xlogy(each_NP, each_NP / middle_NP.clamp(min=torch.finfo(torch.float32).tiny)).sum(1)
        for each_NP in (one_NP, other_NP)
    )
    return (sum(halves, torch.zeros_like(one_NP[:, 0])) / 2).clamp(min=0).sqrt()
