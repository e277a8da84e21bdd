"""Where the partitions of a row lie in its slots: SPIN's CPU partition-offset table.

Layouts that pack clusters of any size need it; a row is one (layer, row) of the page table.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.tables.segments import GROUP, Segments


class Extents(NamedTuple):
    """First slot and number of tokens of partitions, int32, of one shape; 0 and 0 if unwritten."""

    first_RC: Tensor
    count_RC: Tensor


class PartitionOffsets:
    """Extents by (row, partition), in segments of 64 partitions on demand."""

    def __init__(self, num_rows: int, max_partitions: int, device: torch.device) -> None:
        """Room for `max_partitions` in each of `num_rows`, none of it taken yet."""
        self.max_partitions = max_partitions
        self._groups_per_row = -(-max_partitions // GROUP)
        num_addresses = num_rows * self._groups_per_row * GROUP
        self._segments = Segments(num_addresses, (2,), 0, torch.int32, device)

    def read(self, rows_R: Tensor, partitions_RC: Tensor) -> Extents:
        """Extents of partitions of each row, [R, C]."""
        first_R1 = (rows_R * self._groups_per_row * GROUP).unsqueeze(1)
        return Extents(*self._segments.read(first_R1 + partitions_RC).unbind(-1))

    def write(self, rows_R: Tensor, first_RP: Tensor, count_RP: Tensor) -> None:
        """Set partitions 0 .. P - 1 of these rows, each named once; those beyond are 0 and 0."""
        num_partitions = first_RP.shape[1]
        assert num_partitions <= self.max_partitions, f"{num_partitions} partitions are too many"
        self.release(rows_R)
        partition_P = torch.arange(num_partitions, device=rows_R.device)
        addresses_RP = (rows_R * self._groups_per_row * GROUP).unsqueeze(1) + partition_P
        extents_RP2 = torch.stack((first_RP, count_RP), dim=-1).to(torch.int32)
        self._segments.write(addresses_RP, extents_RP2)

    def release(self, rows_R: Tensor) -> None:
        """Forget every partition of these rows, each named once, and give their segments back."""
        groups = torch.arange(self._groups_per_row, device=rows_R.device)
        self._segments.release((rows_R.unsqueeze(1) * self._groups_per_row + groups).flatten())

    def num_bytes(self) -> dict[str, int]:
        """Bytes allocated now: `directory`, `segments` in use, and `reserved` beyond them."""
        return self._segments.num_bytes()
