"""The contract of an attention kernel: one signature, several implementations, one parity test."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Attended:
    """Partial attention: the weighted values and the log-sum-exp that lets partials be merged.

    `out` has the query's shape and dtype; `lse` drops the last axis and is float32. A row that
    attended nothing has `out` = 0 and `lse` = -inf.
    """

    out: Tensor
    lse: Tensor


@dataclass(frozen=True)
class FrameSelection:
    """The frames that each row reads, as CSR.

    indptr_R1: int64 [R + 1]; frames_N: int32 or int64 [N], indices into the pool;
    live_N: int64 [N], bit s says that slot s counts (bit 63 is the sign bit).
    """

    indptr_R1: Tensor
    frames_N: Tensor
    live_N: Tensor


class AttentionKernel(ABC):
    """Attention over KV pages. Implementations are stateless and agree within rounding."""

    name: str

    @abstractmethod
    def decode(
        self, query_RGD: Tensor, pool_FPSD: Tensor, selection: FrameSelection, scale: float
    ) -> Attended:
        """Attend one query group per row over the row's selected frames.

        query_RGD [R, G, D]; pool_FPSD [F, 2, S, D], keys then values, S <= 64. One dtype.
        """

    @abstractmethod
    def prefill(
        self,
        query_KMD: Tensor,
        key_KTD: Tensor,
        value_KTD: Tensor,
        mask_MT: Tensor | None,
        scale: float,
    ) -> Attended:
        """Attend M query rows per kv head over T contiguous tokens.

        mask_MT is bool [M, T], True where a row sees a token; None means it sees all. A row that
        sees nothing yields out 0 and lse -inf.
        """

    @abstractmethod
    def score(
        self, query_RQE: Tensor, segments_NCE: Tensor, directory_RW: Tensor, num_partitions: int
    ) -> Tensor:
        """Dot products of queries with the first P summaries of each row, float32 [R, Q, P].

        segments_NCE: the pool of segments of C summaries, in the query's dtype; directory_RW: int64
        [R, W], each row's segments in order, W * C >= P. The columns of a segment that is absent,
        -1, hold any number.
        """


def merge(first: Attended, second: Attended) -> Attended:
    """Join two partial attentions over disjoint keys; float32 inside, the query's dtype outside."""
    lse = torch.logaddexp(first.lse, second.lse)
    weight = torch.where(torch.isneginf(lse), 0.0, torch.exp(second.lse - lse)).unsqueeze(-1)
    out = torch.lerp(first.out.float(), second.out.float(), weight)
    return Attended(out.to(first.out.dtype), lse)
