"""A partition is a token; tokens that share a page share its read."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from memory_tiers.base import PageSelection, PartitionMapper, Rows
from sparse_algos.base import PartitionKind, Selection


@dataclass(frozen=True, kw_only=True)
class Token(PartitionMapper):
    """Serves single tokens: the containing pages, each once, with the chosen slots live."""

    serves: ClassVar[frozenset[PartitionKind]] = frozenset({"token"})

    def refusal(self, kind: PartitionKind, partition_size: int, page_tokens: int) -> str | None:
        """See PartitionMapper."""
        if kind not in self.serves:
            return f"partition=token places tokens, the algorithm selects {kind}s"
        return None

    def to_pages(
        self, selection: Selection, rows: Rows, page_tokens: int, dead_P: Tensor | None
    ) -> PageSelection:
        """See PartitionMapper."""
        tokens_RC, valid_RC = selection.partitions_RC, selection.valid_RC
        num_pages = -(-rows.longest // page_tokens)
        bit_RC = torch.ones_like(tokens_RC) << (tokens_RC % page_tokens)
        if valid_RC is not None:
            bit_RC = bit_RC.masked_fill(~valid_RC, 0)
        page_RC = (tokens_RC // page_tokens).clamp(max=num_pages - 1)
        # The tokens of a row differ, so a sum of their bits is their union.
        bits_RP = bit_RC.new_zeros(len(tokens_RC), num_pages).scatter_add_(1, page_RC, bit_RC)
        row_N, index_N = bits_RP.nonzero(as_tuple=True)
        pages_N = rows.first_page_R[row_N] + index_N
        live_N = bits_RP[row_N, index_N]
        if dead_P is not None:
            live_N &= ~dead_P[pages_N]
        indptr_R1 = torch.nn.functional.pad((bits_RP != 0).sum(dim=1).cumsum(0), (1, 0))
        wanted = tokens_RC.numel() if valid_RC is None else int(valid_RC.sum())
        return PageSelection(indptr_R1, pages_N, live_N, wanted)
