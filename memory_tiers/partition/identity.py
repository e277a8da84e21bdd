"""A partition is a page."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from memory_tiers.base import Layout, PageSelection, PartitionMapper, Rows, prefix_bits
from sparse_algos.selection import PartitionKind, Selection


@dataclass(frozen=True, kw_only=True)
class Identity(PartitionMapper):
    """Serves blocks of exactly one page."""

    serves: ClassVar[frozenset[PartitionKind]] = frozenset({"block"})
    in_order: ClassVar[bool] = True

    def refusal(self, kind: PartitionKind, partition_size: int, page_tokens: int) -> str | None:
        """See PartitionMapper."""
        if kind not in self.serves:
            return f"partition=identity places blocks, the algorithm selects {kind}s"
        if partition_size != page_tokens:
            return (
                f"partition=identity places blocks of one page, the algorithm's hold "
                f"{partition_size} tokens and partition.page_tokens={page_tokens}"
            )
        return None

    def to_pages(self, selection: Selection, rows: Rows, layout: Layout) -> PageSelection:
        """See PartitionMapper."""
        partitions_RC, valid_RC = selection.partitions_RC, selection.valid_RC
        page_tokens, dead_P = layout.page_tokens, layout.dead_P
        count_RC = rows.num_tokens_R.unsqueeze(1) - partitions_RC * page_tokens
        pages_RC = rows.first_page_R.unsqueeze(1) + partitions_RC
        if valid_RC is None:
            num_rows, columns = partitions_RC.shape
            pages_N, count_N = pages_RC.flatten(), count_RC.flatten()
            device = pages_N.device
            indptr_R1 = torch.arange(0, num_rows * columns + 1, max(columns, 1), device=device)
        else:
            pages_N, count_N = pages_RC[valid_RC], count_RC[valid_RC]
            indptr_R1 = torch.nn.functional.pad(valid_RC.sum(dim=1).cumsum(0), (1, 0))
        count_N = count_N.clamp(max=page_tokens)
        live_N = prefix_bits(page_tokens, pages_N.device)[count_N]
        if dead_P is not None:
            live_N &= ~dead_P[pages_N]
        return PageSelection(indptr_R1, pages_N, live_N, int(count_N.sum()))
