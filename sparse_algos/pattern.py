"""The role that chooses which blocks of a prompt's attention are computed; all KV is kept.

I: blocks of query rows that a chunk of a prompt touches; P: key blocks of the sequence. Both lie on
one grid of `block_tokens`, counted from the first token of the sequence.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from sparse_algos.checks import check_count


@dataclass(frozen=True)
class Chunk:
    """Consecutive prompt rows of one sequence, and the keys of all its tokens so far.

    query_KGMD: [K, G, M, D]; key_KTD: [K, T, D], the rows' own keys last, any content where the
    pattern reads none; num_tokens: T; scale: of the logits.
    """

    query_KGMD: Tensor
    key_KTD: Tensor
    num_tokens: int
    scale: float

    @property
    def past(self) -> int:
        """Tokens before the first row."""
        return self.num_tokens - self.query_KGMD.shape[2]

    @property
    def num_heads(self) -> int:
        """Query heads, those of a kv head side by side."""
        return self.query_KGMD.shape[0] * self.query_KGMD.shape[1]


@dataclass(frozen=True)
class BlockPlan:
    """What is computed: blocks_HIP, bool [H, I, P], of which the diagonal ones are causal inside.

    block_tokens: rows and keys of a block; columns_HC: single keys, ascending, int64 [H, C], that
    the rows of later blocks see although their block is not chosen; None for no such key.
    """

    block_tokens: int
    blocks_HIP: Tensor
    columns_HC: Tensor | None = None

    @property
    def first_block(self) -> int:
        """Place on the grid of the first block of rows."""
        return self.blocks_HIP.shape[2] - self.blocks_HIP.shape[1]

    @property
    def num_tokens(self) -> int:
        """Tokens of the key blocks, the last of which the sequence may not fill."""
        return self.blocks_HIP.shape[2] * self.block_tokens

    def before_HIP(self) -> Tensor:
        """The chosen blocks before that of the rows: every row of these sees every key."""
        own_IP = own_block(self.blocks_HIP.shape[1], self.blocks_HIP.shape[2], self.blocks_HIP)
        return self.blocks_HIP & ~own_IP

    def alone_HIC(self) -> Tensor | None:
        """Which columns each block of rows reads one by one, bool [H, I, C]."""
        if self.columns_HC is None:
            return None
        num_query_blocks, num_blocks = self.blocks_HIP.shape[1:]
        block_HC = self.columns_HC // self.block_tokens
        at_HIC = block_HC.unsqueeze(1).expand(-1, num_query_blocks, -1)
        row_I1 = torch.arange(self.first_block, num_blocks, device=block_HC.device).unsqueeze(1)
        return (block_HC.unsqueeze(1) < row_I1) & ~self.blocks_HIP.gather(2, at_HIC)


@dataclass(frozen=True, kw_only=True)
class PrefillPattern(ABC):
    """Chooses the blocks of a prompt's attention that are computed.

    block_tokens: rows and keys of a block; dense_tokens: sequences of up to so many tokens are
    attended densely. reads_keys: whether the choice depends on the keys.

    A prompt that arrives in chunks is planned chunk by chunk: what a paper works out for the last
    rows of the prompt holds for the last rows of the chunk.
    """

    block_tokens: int
    dense_tokens: int

    reads_keys: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the settings that all patterns share."""
        check_count("algo.prefill.block_tokens", self.block_tokens, least=1)
        check_count("algo.prefill.dense_tokens", self.dense_tokens, least=0)

    @abstractmethod
    def choose(self, chunk: Chunk) -> BlockPlan:
        """The blocks and columns that matter; those in the future are dropped by `plan`."""

    @abstractmethod
    def keeping_all(self) -> Self:
        """The same pattern with settings under which nothing is skipped."""

    def plan(self, chunk: Chunk) -> BlockPlan:
        """What to compute: the choice, the first block and the rows' own, nothing of the future."""
        num_blocks = -(-chunk.num_tokens // self.block_tokens)
        num_query_blocks = num_blocks - chunk.past // self.block_tokens
        device = chunk.query_KGMD.device
        block_P = torch.arange(num_blocks, device=device)
        past_IP = block_P <= block_P[num_blocks - num_query_blocks :].unsqueeze(1)
        if chunk.num_tokens <= self.dense_tokens:
            return BlockPlan(self.block_tokens, past_IP.expand(chunk.num_heads, -1, -1))
        chosen = self.choose(chunk)
        forced_IP = own_block(num_query_blocks, num_blocks, past_IP) | (block_P == 0)
        blocks_HIP = (chosen.blocks_HIP | forced_IP) & past_IP
        return BlockPlan(self.block_tokens, blocks_HIP, chosen.columns_HC)


def own_block(num_query_blocks: int, num_blocks: int, like: Tensor) -> Tensor:
    """The block of the rows themselves, bool [I, P]."""
    eye = torch.eye(num_query_blocks, dtype=torch.bool, device=like.device)
    return torch.nn.functional.pad(eye, (num_blocks - num_query_blocks, 0))
