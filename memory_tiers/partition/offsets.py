"""Where partitions of varying size lie: their first slot and length, by row and partition."""

import torch
from torch import Tensor

from memory_tiers.base import SlotRanges


class PartitionOffsets:
    """A dense table by directory row, one per (layer, row); what was never written is empty."""

    def __init__(self, num_rows: int, max_partitions: int, device: torch.device) -> None:
        """Room for `max_partitions` in each row, none of them there."""
        self._first_RP = torch.zeros(num_rows, max_partitions, dtype=torch.int32, device=device)
        self._count_RP = torch.zeros_like(self._first_RP)

    @property
    def num_bytes(self) -> int:
        """Bytes of the table."""
        return self._first_RP.nbytes + self._count_RP.nbytes

    def read(self, rows_R: Tensor, partitions_RC: Tensor) -> SlotRanges:
        """Slots of these partitions of each row, int64 [R, C]."""
        row_R1 = rows_R.unsqueeze(1)
        first_RC, count_RC = (
            one[row_R1, partitions_RC].long() for one in (self._first_RP, self._count_RP)
        )
        return SlotRanges(first_RC, count_RC)

    def sizes(self, rows_R: Tensor, num_partitions: int) -> Tensor:
        """Slots of the first partitions of each row, int64 [R, P]."""
        return self._count_RP[rows_R, :num_partitions].long()

    def write(self, rows_R: Tensor, partitions_RC: Tensor, ranges: SlotRanges) -> None:
        """Set partitions of each row."""
        row_R1 = rows_R.unsqueeze(1)
        self._first_RP[row_R1, partitions_RC] = ranges.first_RC.int()
        self._count_RP[row_R1, partitions_RC] = ranges.count_RC.int()

    def release(self, rows_R: Tensor) -> None:
        """Empty these rows."""
        self._count_RP[rows_R] = 0
