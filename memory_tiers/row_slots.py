"""How many slots each row has in use, where heads of a sequence may differ."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from memory_tiers.page_table import PageTable


class RowSlots:
    """Slots in use by layer and row, live or dead: on the device, and bounds of them on the host.

    used_LR: int64 [L, rows of the page table]; shared_LR: of these, the first ones, which hold what
    is left of a context that is asked again.
    """

    def __init__(self, table: PageTable) -> None:
        """Every row is empty."""
        geometry = table.geometry
        self._table = table
        shape = (geometry.num_layers, table.num_rows)
        self.used_LR = torch.zeros(shape, dtype=torch.int64, device=table.device)
        self.shared_LR = torch.zeros_like(self.used_LR)
        bounds = (geometry.num_layers, table.num_sequences)
        self._least_LB = np.zeros(bounds, dtype=np.int64)
        self._most_LB = np.zeros(bounds, dtype=np.int64)

    def least(self, layer: int, slots: Sequence[int]) -> tuple[int, ...]:
        """Slots that every head of each sequence has in use."""
        return tuple(self._least_LB[layer, list(slots)].tolist())

    def most(self, layer: int, slots: Sequence[int]) -> tuple[int, ...]:
        """Slots of the head that has the most in use, for each sequence."""
        return tuple(self._most_LB[layer, list(slots)].tolist())

    def widest(self, layer: int) -> int:
        """The most slots that any row of a layer has in use."""
        return int(self._most_LB[layer].max())

    def grow(self, layer: int, slots: Sequence[int], rows_R: Tensor, new: int) -> None:
        """Each row of these sequences takes `new` slots more."""
        self.used_LR[layer, rows_R] += new
        self._least_LB[layer, list(slots)] += new
        self._most_LB[layer, list(slots)] += new

    def set(self, layer: int, slots: Sequence[int], rows_R: Tensor, used_R: Tensor) -> None:
        """The rows of these sequences, heads innermost, have so many in use; the host waits."""
        self.used_LR[layer, rows_R] = used_R
        used_BK = used_R.view(len(slots), -1).cpu().numpy()
        self._least_LB[layer, list(slots)] = used_BK.min(axis=1)
        self._most_LB[layer, list(slots)] = used_BK.max(axis=1)

    def release(self, slot: int) -> None:
        """A sequence is gone."""
        rows_K = self._table.rows_of(torch.tensor([slot], device=self.used_LR.device))
        self.used_LR[:, rows_K] = 0
        self.shared_LR[:, rows_K] = 0
        self._least_LB[:, slot] = 0
        self._most_LB[:, slot] = 0
