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
    columns, distances = [], []
    for query_GMD, key_TD in zip(chunk.query_KGMD, chunk.key_KTD, strict=True):
        query_GLD = query_GMD[:, -num_rows:].float() * chunk.scale
        logits_GLT = query_GLD @ key_TD[: chunk.num_tokens].float().T
        future_LL = torch.ones(num_rows, num_rows, dtype=torch.bool, device=key_TD.device).triu(1)
        logits_GLT[..., -num_rows:].masked_fill_(future_LL, -torch.inf)
        mass_GLT = logits_GLT.softmax(-1)
        columns.append(mass_GLT.sum(1))
        distances.append(_by_distance(mass_GLT))
    return Lines(torch.cat(columns), torch.cat(distances), num_rows)


def block_sums(mass_HT: Tensor, block_tokens: int) -> Tensor:
    """Sums over blocks of tokens, the last of which may be short: [H, P]."""
    short = -mass_HT.shape[1] % block_tokens
    padded_HT = torch.nn.functional.pad(mass_HT, (0, short))
    return padded_HT.unflatten(1, (-1, block_tokens)).sum(2)


def _by_distance(mass_GLT: Tensor) -> Tensor:
    """Sums along diagonals, [G, T]: the rows are shifted until the diagonals are columns."""
    num_heads, num_rows, num_tokens = mass_GLT.shape
    padded_GLW = torch.nn.functional.pad(mass_GLT.flip(1), (0, num_rows)).flatten(1)
    width = num_tokens + num_rows - 1
    shifted_GLW = padded_GLW[:, : num_rows * width].view(num_heads, num_rows, width)
    return shifted_GLW.sum(1)[:, :num_tokens].flip(1)
