"""XAttention (Xu et al., ICML 2025, arXiv:2503.16428): blocks by sums over their antidiagonals.

Rows and keys are folded by a stride, so that one product sums the logits along an antidiagonal.
Computed for the past only, a few blocks of rows at a time; the blocks are those of the paper.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparse_algos.checks import check_count, check_share
from sparse_algos.coverage import covering
from sparse_algos.pattern import BlockPlan, Chunk, PrefillPattern, own_block

# Folded rows of one product: what it holds stays in the processor's caches.
ROWS_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class XAttention(PrefillPattern):
    """Each block of rows takes the fewest blocks that hold `threshold` of its estimated mass."""

    stride: int
    threshold: float

    def __post_init__(self) -> None:
        """See PrefillPattern."""
        super().__post_init__()
        check_count("algo.prefill.stride", self.stride, least=1)
        if self.block_tokens % self.stride:
            raise ValueError(
                f"algo.prefill.stride={self.stride} does not divide algo.prefill.block_tokens="
                f"{self.block_tokens}; use 8 or 16"
            )
        check_share("algo.prefill.threshold", self.threshold, of="the attention mass")

    def keeping_all(self) -> Self:
        """See PrefillPattern."""
        return replace(self, threshold=1.0)

    def choose(self, chunk: Chunk) -> BlockPlan:
        """The fewest blocks that reach the threshold, the first and the rows' own before others."""
        mass_HIP = self.estimate(chunk)
        num_query_blocks, num_blocks = mass_HIP.shape[1:]
        if self.threshold == 1.0:
            return BlockPlan(self.block_tokens, torch.ones_like(mass_HIP, dtype=torch.bool))
        forced_IP = own_block(num_query_blocks, num_blocks, mass_HIP)
        forced_IP[:, 0] = True
        mass_NP = mass_HIP.flatten(0, 1)
        needed_N = mass_NP.double().sum(1) * self.threshold
        chosen_NP = covering(mass_NP, needed_N, forced_IP.repeat(len(mass_HIP), 1))
        return BlockPlan(self.block_tokens, chosen_NP.view_as(mass_HIP))

    def estimate(self, chunk: Chunk) -> Tensor:
        """Estimated mass of each block, float32 [H, I, P], 0 in the future."""
        return torch.cat(
            [
                self._of_head(query_GMD, key_TD, chunk)
                for query_GMD, key_TD in zip(chunk.query_KGMD, chunk.key_KTD, strict=True)
            ]
        )

    def _of_head(self, query_GMD: Tensor, key_TD: Tensor, chunk: Chunk) -> Tensor:
        """Mass by block, float32 [G, I, P]; U are folded rows of its blocks, V folded keys."""
        per_block = self.block_tokens // self.stride
        before, after = chunk.past % self.block_tokens, -chunk.num_tokens % self.block_tokens
        scaled_TD = key_TD[: chunk.num_tokens] * (chunk.scale / self.stride)
        padded_TD = pad(scaled_TD, (0, 0, 0, after))
        padded_GTD = pad(query_GMD, (0, 0, before, after))
        key_VE = padded_TD.unflatten(0, (-1, self.stride)).flip(1).flatten(1)
        query_GUE = padded_GTD.unflatten(1, (-1, self.stride)).flatten(2)
        num_rows, num_blocks = query_GUE.shape[1], len(key_VE) // per_block
        # Rows of nothing but padding, before the chunk and behind it, count for nothing.
        row_U = torch.arange(num_rows, device=key_TD.device) * self.stride
        real_U = (row_U + self.stride > before) & (row_U < before + query_GMD.shape[1])
        mass_GIP = key_VE.new_zeros(
            (len(query_GMD), num_rows // per_block, num_blocks), dtype=torch.float32
        )
        at_once = max(1, ROWS_AT_ONCE // per_block)
        for start in range(0, mass_GIP.shape[1], at_once):
            stop = min(start + at_once, mass_GIP.shape[1])
            end = num_blocks - mass_GIP.shape[1] + stop
            rows = slice(start * per_block, stop * per_block)
            mass_GUV = _causal_mass(query_GUE[:, rows], key_VE[: end * per_block])
            mass_GUP = mass_GUV.unflatten(2, (-1, per_block)).sum(3) * real_U[rows].unsqueeze(1)
            mass_GIP[:, start:stop, :end] = mass_GUP.unflatten(1, (-1, per_block)).sum(2)
        return mass_GIP


def _causal_mass(query_GUE: Tensor, key_VE: Tensor) -> Tensor:
    """Softmax of the logits of rows that are the last of the keys' own, float32 [G, U, V]."""
    num_heads, num_rows = query_GUE.shape[:2]
    # One product: as a batch of G it would copy the keys for every head.
    logits_NV = query_GUE.flatten(0, 1) @ key_VE.T
    logits_GUV = logits_NV.float().unflatten(0, (num_heads, num_rows))
    future_UU = torch.ones(num_rows, num_rows, dtype=torch.bool, device=key_VE.device).triu(1)
    logits_GUV[..., -num_rows:].masked_fill_(future_UU, -torch.inf)
    return logits_GUV.softmax(-1)
