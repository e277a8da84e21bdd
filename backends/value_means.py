"""Mean values of whole rows, for retrievers that put them in place of what is not read."""

import torch
from torch import Tensor

from backends.batch import Batch
from memory_tiers.page_table import PageTable


class ValueMeans:
    """Running sums of values, float32, by row and layer; evicted tokens still count."""

    def __init__(self, table: PageTable) -> None:
        """Nothing was added to any row."""
        geometry = table.geometry
        rows = geometry.num_layers * table.num_rows
        self._sum_RD = torch.zeros(rows, geometry.head_dim, device=table.device)
        self._mean_ND: dict[int, Tensor] = {}
        self._shared_KD: dict[tuple[int, int], Tensor] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes of the sums."""
        return self._sum_RD.numel() * self._sum_RD.itemsize

    def add(self, layer: int, batch: Batch, value_ND: Tensor) -> None:
        """Add a batch's values, rows outermost."""
        rows_R = batch.index_rows(layer)
        value_RMD = value_ND.float().unflatten(0, (len(rows_R), -1))
        sums_RMD = self._sum_RD[rows_R].unsqueeze(1) + value_RMD.cumsum(dim=1)
        self._sum_RD[rows_R] = sums_RMD[:, -1]
        if batch.longest - batch.new < batch.shared <= batch.longest:
            nth = batch.shared - (batch.longest - batch.new) - 1
            self._shared_KD[layer, batch.slots[0]] = sums_RMD[:, nth].clone()
        count_RM1 = (batch.positions_RM + 1).unsqueeze(2)
        self._mean_ND[layer] = (sums_RMD / count_RM1).flatten(0, 1)

    def mean_ND(self, layer: int) -> Tensor:
        """Mean over what each query row of the last batch sees, itself included: [R * M, D]."""
        return self._mean_ND[layer]

    def rewind(self, layer: int, slot: int, rows_K: Tensor) -> None:
        """Only the values of the context that is asked again count."""
        self._sum_RD[rows_K] = self._shared_KD[layer, slot]

    def release(self, layer: int, slot: int, rows_K: Tensor) -> None:
        """Forget a layer of a sequence, whose rows these are."""
        self._sum_RD[rows_K] = 0
        self._shared_KD.pop((layer, slot), None)
