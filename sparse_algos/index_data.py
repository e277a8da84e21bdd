"""What passes between a retriever and the index that keeps its summaries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_algos.selection import Selection

Summaries = Mapping[str, Tensor]
NOTHING: Summaries = {}


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one named summary of one partition.

    by_entry: whether neighbours lie together entry by entry, for what looks at few of a vector's.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    by_entry: bool = False


class Keys(NamedTuple):
    """Keys of P consecutive partitions of each of R rows in one layer; kv heads innermost in R.

    key_RPSD; live_RPS: bool, the slots that hold a token, the others may hold anything; first_R:
    int64 [R], the number of each row's first partition here; query_RTD: float32, where the
    retriever `waits` for queries: means over the query group, of the tokens of these partitions and
    of the `waits` tokens after them.
    """

    key_RPSD: Tensor
    live_RPS: Tensor
    first_R: Tensor
    layer: int
    query_RTD: Tensor | None = None


class NewKeys(NamedTuple):
    """One more key for the last partition of each of R rows in one layer; kv heads innermost in R.

    key_RD; count_R: int64, tokens that the partition held before.
    """

    key_RD: Tensor
    count_R: Tensor
    layer: int


class Queries(NamedTuple):
    """Queries of R rows of one layer, Q = M * G for each, group innermost; kv heads innermost in R.

    query_RQD; position_RM: int64, tokens before each query row; num_partitions: those to score.
    """

    query_RQD: Tensor
    position_RM: Tensor
    layer: int
    num_partitions: int


class Read(NamedTuple):
    """What decode rows have read exactly, for an estimate of the rest.

    query_RGD; scores_RGP: see `Retriever.score`; lse_RG: float32, log of the sum of exponentials of
    the logits that were read; selection: what was selected; summaries: [R, C, ...] of
    selection.estimated_RC; value_RD: float32, mean of the values of every token, where
    `needs_value_mean`; scale: of the logits. share_RG: float32, where the retriever `shares`, see
    Selection; scores and selection may be missing then.
    """

    query_RGD: Tensor
    scores_RGP: Tensor | None
    lse_RG: Tensor
    selection: Selection | None
    summaries: Summaries
    value_RD: Tensor | None
    scale: float
    share_RG: Tensor | None = None


class Estimate(NamedTuple):
    """Attention over what was not read: out_RGD, and its weight as lse_RG, both float32."""

    out_RGD: Tensor
    lse_RG: Tensor
