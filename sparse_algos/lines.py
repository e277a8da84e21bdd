"""Vertical and slash lines of an attention map, seen from its last rows."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse_algos.pattern import Chunk


class Lines(NamedTuple):
    """Attention mass that the last rows give to each key and to each distance.

    columns_HT: [H, T] by key; distances_HT: [H, T], distance 0 is the row itself. Sums over
    num_rows rows, float32.
    """

    columns_HT: Tensor
    distances_HT: Tensor
    num_rows: int


def lines_of(chunk: Chunk, most_rows: int) -> Lines:
    """The lines that the chunk's last rows, at most `most_rows`, see."""
    num_rows = min(most_rows, chunk.query_KGMD.shape[2])
    ones_LL = torch.ones(num_rows, num_rows, dtype=torch.bool, device=chunk.key_KTD.device)
    future_LL = ones_LL.triu(1)
    columns, distances = [], []
    for query_GMD, key_TD in zip(chunk.query_KGMD, chunk.key_KTD, strict=True):
        seen_TD = key_TD[: chunk.num_tokens].float()
        # One head at a time: what a head holds stays in the caches.
        for query_LD in query_GMD[:, -num_rows:].float() * chunk.scale:
            logits_LT = query_LD @ seen_TD.T
            logits_LT[:, -num_rows:].masked_fill_(future_LL, -torch.inf)
            mass_LT = logits_LT.softmax(-1)
            columns.append(mass_LT.sum(0))
            distances.append(_by_distance(mass_LT))
    return Lines(torch.stack(columns), torch.stack(distances), num_rows)


def block_sums(mass_HT: Tensor, block_tokens: int) -> Tensor:
    """Sums over blocks of tokens, the last of which may be short: [H, P]."""
    short = -mass_HT.shape[1] % block_tokens
    padded_HT = torch.nn.functional.pad(mass_HT, (0, short))
    return padded_HT.unflatten(1, (-1, block_tokens)).sum(2)


def _by_distance(mass_LT: Tensor) -> Tensor:
    """Sums along the diagonals of rows that are the last ones, [T].

    Read T + 1 at a time, the diagonals are columns: what wraps into the next row lies, as far as
    the rows are causal, on a diagonal of its own.
    """
    num_rows, num_tokens = mass_LT.shape
    whole_N, rest_N = mass_LT.flatten().tensor_split([(num_rows - 1) * (num_tokens + 1)])
    sums_W = whole_N.view(num_rows - 1, num_tokens + 1).sum(0)
    sums_W[: len(rest_N)] += rest_N
    return sums_W.flip(0).roll(-num_rows)[:num_tokens]
