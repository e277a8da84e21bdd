"""From ranges of slots to pages: the arithmetic that every mapper but `identity` shares."""

from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.base import Layout, PageSelection, Rows, SlotRanges, prefix_bits
from sparse_algos.selection import Selection


class Pieces(NamedTuple):
    """Parts of ranges, in order: the row, a page, and the range, by slots from the page's start.

    The page is counted from the row's first; all are int64 [N].
    """

    row_N: Tensor
    index_N: Tensor
    from_N: Tensor
    to_N: Tensor


def uniform_ranges(selection: Selection, rows: Rows, layout: Layout) -> SlotRanges:
    """Where partitions of one size lie: partition p from slot p * size on, cut off at the end."""
    first_RC = selection.partitions_RC * layout.partition_size
    count_RC = (rows.num_tokens_R.unsqueeze(1) - first_RC).clamp(max=layout.partition_size)
    if selection.valid_RC is not None:
        count_RC = count_RC * selection.valid_RC
    return SlotRanges(first_RC, count_RC)


def pages_of(
    ranges: SlotRanges, rows: Rows, layout: Layout, *, aligned: bool = False
) -> PageSelection:
    """The pages that hold these slots, each once per row, less what is dead.

    The ranges of a row are disjoint and ascending; those of no slots may stand anywhere.
    aligned: no range crosses a page boundary, which saves the cutting.
    """
    pieces = _ranges_there(ranges, layout.page_tokens)
    if not aligned:
        pieces = _cut(pieces, layout.page_tokens)
    row_N, index_N, _, _ = pieces
    ends_N = torch.ones_like(index_N, dtype=torch.bool)
    ends_N[:-1] = (index_N[1:] != index_N[:-1]) | (row_N[1:] != row_N[:-1])
    at_N = ends_N.nonzero().squeeze(1)
    # Ranges are disjoint, so a sum of their bits is their union; the running sum may wrap around.
    upto_N = _bits(pieces, layout.page_tokens).cumsum(0).index_select(0, at_N)
    live_N = torch.diff(upto_N, prepend=upto_N.new_zeros(1))
    row_N = row_N.index_select(0, at_N)
    pages_N = rows.first_page_R.index_select(0, row_N) + index_N.index_select(0, at_N)
    if layout.dead_P is not None:
        live_N = live_N & ~layout.dead_P[pages_N]
        held_N = live_N != 0
        row_N, pages_N, live_N = row_N[held_N], pages_N[held_N], live_N[held_N]
    per_row_R = torch.bincount(row_N, minlength=len(rows.first_page_R))
    indptr_R1 = torch.nn.functional.pad(per_row_R.cumsum(0), (1, 0))
    return PageSelection(indptr_R1, pages_N, live_N, int(ranges.count_RC.sum()))


def _ranges_there(ranges: SlotRanges, page_tokens: int) -> Pieces:
    """One piece for each range that has slots: the page where it begins, all of its slots."""
    num_rows, columns = ranges.first_RC.shape
    first_N, count_N = ranges.first_RC.flatten(), ranges.count_RC.flatten()
    row_N = torch.arange(num_rows, device=first_N.device).repeat_interleave(columns)
    at_N = count_N.nonzero().squeeze(1)
    if len(at_N) < len(count_N):
        row_N, first_N, count_N = (one.index_select(0, at_N) for one in (row_N, first_N, count_N))
    index_N = torch.div(first_N, page_tokens, rounding_mode="trunc")
    from_N = first_N - index_N * page_tokens
    return Pieces(row_N, index_N, from_N, from_N + count_N)


def _cut(whole: Pieces, page_tokens: int) -> Pieces:
    """Cut at page boundaries; the slots are counted from each piece's own page."""
    num_N = torch.div(whole.to_N - 1, page_tokens, rounding_mode="trunc") + 1
    owner_N = torch.repeat_interleave(num_N)
    begun_N = (num_N.cumsum(0) - num_N).index_select(0, owner_N)
    nth_N = torch.arange(len(owner_N), device=owner_N.device) - begun_N
    row_N, index_N, from_N, to_N = (one.index_select(0, owner_N) for one in whole)
    past_N = nth_N * page_tokens
    from_N = (from_N - past_N).clamp(min=0)
    to_N = (to_N - past_N).clamp(max=page_tokens)
    return Pieces(row_N, index_N + nth_N, from_N, to_N)


def _bits(pieces: Pieces, page_tokens: int) -> Tensor:
    """Slots of each piece in its page, one bit each, int64."""
    prefix = prefix_bits(page_tokens, pieces.from_N.device)
    return prefix.index_select(0, pieces.to_N - pieces.from_N) << pieces.from_N
