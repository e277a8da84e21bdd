"""Attention in plain float64 loops, and the comparison of a kernel with it."""

from collections.abc import Iterator

import torch
from torch import Tensor

from backends.attention.base import Attended, FrameSelection

# Relative to the largest value; bfloat16 keeps 8 bits, once in the weights and once in the result.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1.2e-2}
# Absolute; torch's operator takes a coarser exponential for bfloat16.
LSE_TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-4}
SCALE = 0.17


def selection_of(live_by_row: list[list[int]], num_frames: int) -> FrameSelection:
    """Random distinct frames for rows of pages with these live bits, as unsigned numbers."""
    counts = torch.tensor([0, *map(len, live_by_row)])
    live = [bits - (1 << 64) if bits >> 63 else bits for row in live_by_row for bits in row]
    return FrameSelection(
        indptr_R1=counts.cumsum(0),
        frames_N=torch.randperm(num_frames)[: len(live)],
        live_N=torch.tensor(live, dtype=torch.int64),
    )


def ragged(page_size: int, num_frames: int) -> FrameSelection:
    """Rows that are empty, short, long, partial, full of holes, and wholly dead."""
    full = (1 << page_size) - 1
    holes, last = full & 0x5A5A5A5A5A5A5A5A, 1 << (page_size - 1)
    long = [full, holes, 0, last] * (2400 // page_size // 4) + [full >> 3]
    return selection_of([[], [full], long, [1], [0, 0], [holes, full, full, 7], []], num_frames)


def seen_slots(selection: FrameSelection, row: int) -> Iterator[tuple[int, int]]:
    """The frame and slot of each token that a row sees."""
    for at in range(int(selection.indptr_R1[row]), int(selection.indptr_R1[row + 1])):
        bits = int(selection.live_N[at])
        yield from ((int(selection.frames_N[at]), slot) for slot in range(64) if bits >> slot & 1)


def poisoned_pool(selection: FrameSelection, num_frames: int, page_size: int, dim: int) -> Tensor:
    """A pool in which every slot that no row sees is NaN."""
    pool = torch.full((num_frames, 2, page_size, dim), float("nan"))
    for row in range(len(selection.indptr_R1) - 1):
        for frame, slot in seen_slots(selection, row):
            pool[frame, :, slot] = torch.randn(2, dim)
    return pool


def attend_exactly(query_MD: Tensor, key_TD: Tensor, value_TD: Tensor) -> Attended:
    """Attention in float64, with the convention for no tokens."""
    scores_MT = query_MD.double() @ key_TD.double().T * SCALE
    out_MD = scores_MT.softmax(-1) @ value_TD.double()
    return Attended(out_MD, scores_MT.logsumexp(-1))


def decode_exactly(query: Tensor, pool: Tensor, selection: FrameSelection) -> Attended:
    """Decode, one row after the other."""
    rows = []
    for row, query_GD in enumerate(query):
        seen = list(seen_slots(selection, row))
        tokens = torch.stack([pool[frame, :, slot] for frame, slot in seen] or [pool[0, :, 0] * 0])
        rows.append(attend_exactly(query_GD, tokens[: len(seen), 0], tokens[: len(seen), 1]))
    return Attended(torch.stack([row.out for row in rows]), torch.stack([row.lse for row in rows]))


def prefill_exactly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Attended:
    """Prefill, one kv head and one query row after the other."""
    shape = query.shape
    rows = [
        attend_exactly(query[k, m, None], key[k, mask[m]], value[k, mask[m]])
        for k in range(shape[0])
        for m in range(shape[1])
    ]
    out = torch.cat([row.out for row in rows])
    return Attended(out.view(shape), torch.cat([row.lse for row in rows]).view(shape[:2]))


def assert_agrees(actual: Attended, exact: Attended, dtype: torch.dtype) -> None:
    """Equal within rounding, and exactly 0 and -inf where nothing was attended."""
    empty = exact.lse.isneginf()
    assert actual.out.dtype == dtype
    assert actual.lse.dtype == torch.float32
    assert actual.out.shape == exact.out.shape
    assert torch.equal(actual.lse.isneginf(), empty)
    assert not actual.out[empty].any()
    error = (actual.out.double() - exact.out).abs().max() / exact.out.abs().max()
    lse_error = (actual.lse.double() - exact.lse)[~empty].abs().max()
    assert error <= TOLERANCE[dtype], f"out is off by {error:.1e} of the largest value"
    assert lse_error <= LSE_TOLERANCE[dtype], f"lse is off by {lse_error:.1e}"
