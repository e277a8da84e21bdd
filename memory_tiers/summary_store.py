"""Where summaries live: segments of consecutive partitions of one row, allocated on demand.

A small directory per row names its segments (the two levels of SPIN's metadata, arXiv:2604.26837,
section 5), so sequences come and go without copying anything.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.huge import huge_empty
from sparse_algos.index_data import Summaries, TensorSpec

SEGMENT = 64


class Segments(NamedTuple):
    """One summary where it lies, [num_segments, SEGMENT, ...], and each row's segments in order.

    directory_RW: int64 [R, W], -1 where a row has none.
    """

    pool_NCE: Tensor
    directory_RW: Tensor


class SummaryStore:
    """Named tensors per (directory row, partition); a directory row is one (layer, row)."""

    def __init__(
        self,
        spec: Mapping[str, TensorSpec],
        num_rows: int,
        max_partitions: int,
        device: torch.device,
    ) -> None:
        """Room for `max_partitions` in each of `num_rows`, none of it taken yet."""
        self._spec = spec
        self._device = device
        self._segment = SEGMENT
        width = -(-max_partitions // SEGMENT)
        self._directory_RW = torch.full((num_rows, width), -1, device=device)
        # One segment from the start: a row that has none yet is read as one that holds anything.
        self._pools = {name: self._pool(one, 1) for name, one in spec.items()}
        self._free: Tensor = torch.zeros(1, dtype=torch.int64, device=device)
        self._num_segments = 1
        self.peak_segments = 0

    @property
    def segment_bytes(self) -> int:
        """Bytes of one segment, over all summaries."""
        sizes = [torch.Size(one.shape).numel() * one.dtype.itemsize for one in self._spec.values()]
        return SEGMENT * sum(sizes)

    @property
    def peak_bytes(self) -> int:
        """Most bytes that segments in use took at one time, with the directory."""
        directory = self._directory_RW.numel() * self._directory_RW.itemsize
        return self.peak_segments * self.segment_bytes + directory

    def read(
        self, rows_R: Tensor, num_partitions: int, names: Sequence[str] | None = None
    ) -> Summaries:
        """The first `num_partitions` of each row, as [R, P, ...]; absent ones hold anything."""
        width = -(-num_partitions // self._segment)
        segments_N = self._directory_RW[rows_R, :width].clamp(min=0).flatten()
        # Whole segments, one after the other: several times faster than an index of two axes.
        return {
            name: self._pools[name]
            .index_select(0, segments_N)
            .reshape(len(rows_R), width * self._segment, *self._spec[name].shape)
            .narrow(1, 0, num_partitions)
            for name in (self._pools if names is None else names)
        }

    def segments(self, name: str, rows_R: Tensor, num_partitions: int) -> Segments:
        """What `read` would copy of one summary, in place; valid until the next `reserve`."""
        width = -(-num_partitions // self._segment)
        return Segments(self._pools[name], self._directory_RW[rows_R, :width])

    def read_at(
        self, rows_N: Tensor, partitions_N: Tensor, names: Sequence[str] | None = None
    ) -> Summaries:
        """Single partitions, in the shape of their rows; what was never written holds anything."""
        segment_N = self._directory_RW[rows_N, partitions_N // self._segment].clamp(min=0)
        slot_N = partitions_N % self._segment
        return {
            name: _picked(self._pools[name], segment_N, slot_N)
            for name in (self._pools if names is None else names)
        }

    def reserve(
        self, rows_R: Tensor, num_partitions: int, partitions_R: Tensor | None = None
    ) -> None:
        """Make sure that the first `num_partitions` of each row can be written.

        partitions_R: how many of each row, where they differ; none above `num_partitions`.
        """
        width = -(-num_partitions // SEGMENT)
        absent_RW = self._directory_RW[rows_R, :width] < 0
        if partitions_R is not None:
            start_W = torch.arange(width, device=rows_R.device) * SEGMENT
            absent_RW &= start_W < partitions_R.unsqueeze(1)
        row_N, column_N = absent_RW.nonzero(as_tuple=True)
        if row_N.numel():
            self._directory_RW[rows_R[row_N], column_N] = self._allocate(row_N.numel())

    def write(self, rows_N: Tensor, partitions_N: Tensor, summaries: Summaries) -> None:
        """Set single partitions that are reserved; summaries are [N, ...]."""
        segment_N = self._directory_RW[rows_N, partitions_N // self._segment]
        slot_N = partitions_N % self._segment
        for name, pool in self._pools.items():
            pool[segment_N, slot_N] = summaries[name]

    def release(self, rows_R: Tensor) -> None:
        """Give back every segment of these rows."""
        segments = self._directory_RW[rows_R]
        self._free = torch.cat((self._free, segments[segments >= 0]))
        self._directory_RW[rows_R] = -1

    def _allocate(self, count: int) -> Tensor:
        if count > len(self._free):
            self._grow(count - len(self._free))
        taken, self._free = self._free[:count], self._free[count:]
        self.peak_segments = max(self.peak_segments, self._num_segments - len(self._free))
        return taken

    def _grow(self, least: int) -> None:
        more = max(least, self._num_segments // 2)
        for name, one in self._spec.items():
            grown = self._pool(one, self._num_segments + more)
            grown[: self._num_segments] = self._pools[name]
            self._pools[name] = grown
        fresh = torch.arange(self._num_segments, self._num_segments + more, device=self._device)
        self._free = torch.cat((self._free, fresh))
        self._num_segments += more

    def _pool(self, one: TensorSpec, count: int) -> Tensor:
        if one.by_entry:
            pool_NEC = huge_empty((count, *one.shape, SEGMENT), one.dtype, self._device)
            return pool_NEC.movedim(-1, 1)
        return huge_empty((count, SEGMENT, *one.shape), one.dtype, self._device)


def _picked(pool: Tensor, segment_N: Tensor, slot_N: Tensor) -> Tensor:
    """Single partitions of a pool, in the shape of their places."""
    if not pool.is_contiguous():
        return pool[segment_N, slot_N]
    # One axis: several times faster than an index of two.
    at_M = (segment_N * pool.shape[1] + slot_N).flatten()
    return pool.flatten(0, 1).index_select(0, at_M).view(*segment_N.shape, *pool.shape[2:])
