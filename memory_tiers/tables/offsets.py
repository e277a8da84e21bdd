"""Where the partitions of a row lie in its slots: SPIN's CPU partition-offset table.

Layouts that pack clusters of any size need it; a row is one (layer, row) of the page table.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
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
        addresses_RC = self._addresses(rows_R, partitions_RC)
        return Extents(*self._segments.read(addresses_RC).unbind(-1))

    def write(self, rows_R: Tensor, first_RP: Tensor, count_RP: Tensor) -> None:
        """Set partitions 0 .. P - 1 of these rows, each named once; those beyond are 0 and 0."""
        num_partitions = first_RP.shape[1]
        assert num_partitions <= self.max_partitions, f"{num_partitions} partitions are too many"
        self.release(rows_R)
        extents_RP2 = torch.stack((first_RP.int(), count_RP.int()), dim=-1)
        whole_RP2 = F.pad(extents_RP2, (0, 0, 0, -num_partitions % GROUP))
        groups_RW = self._groups(rows_R, whole_RP2.shape[1] // GROUP)
        self._segments.write_groups(groups_RW.flatten(), whole_RP2.view(-1, GROUP, 2))

    def put(
        self, rows_R: Tensor, partitions_RC: Tensor, first_RC: Tensor, count_RC: Tensor
    ) -> None:
        """Set partitions of rows, each named once; the others stay as they are."""
        addresses_RC = self._addresses(rows_R, partitions_RC)
        extents_RC2 = torch.stack((first_RC.int(), count_RC.int()), dim=-1)
        self._segments.write(addresses_RC.flatten(), extents_RC2.flatten(0, 1))

    def sizes(self, rows_R: Tensor, num_partitions: int) -> Tensor:
        """Tokens of the first partitions of each row, int64 [R, P]."""
        groups_RW = self._groups(rows_R, -(-num_partitions // GROUP))
        whole_NE2 = self._segments.read_groups(groups_RW.flatten())
        count_RP = whole_NE2[..., 1].reshape(len(rows_R), groups_RW.shape[1] * GROUP)
        return count_RP[:, :num_partitions].long()

    def release(self, rows_R: Tensor) -> None:
        """Forget every partition of these rows, each named once, and give their segments back."""
        self._segments.release(self._groups(rows_R, self._groups_per_row).flatten())

    def num_bytes(self) -> dict[str, int]:
        """Bytes allocated now: `directory`, `segments` in use, and `reserved` beyond them."""
        return self._segments.num_bytes()

    def _addresses(self, rows_R: Tensor, partitions_RC: Tensor) -> Tensor:
        return (rows_R * self._groups_per_row * GROUP).unsqueeze(1) + partitions_RC

    def _groups(self, rows_R: Tensor, num_groups: int) -> Tensor:
        """The first groups of each row, [R, W]."""
        group_W = torch.arange(num_groups, device=rows_R.device)
        return (rows_R * self._groups_per_row).unsqueeze(1) + group_W
