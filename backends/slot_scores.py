"""What an evictor remembers of each slot: one number, in tensors as wide as the rows of a layer."""

import torch
from torch import Tensor

from memory_tiers.page_table import PageTable


class SlotScores:
    """Float32 by layer, row and slot, 0 where nothing was said; a layer is as wide as it needs."""

    def __init__(self, table: PageTable) -> None:
        """Nothing is remembered."""
        self._grain = table.geometry.page_tokens
        empty_RT = torch.zeros(table.num_rows, 0, device=table.device)
        self._layers = [empty_RT] * table.geometry.num_layers
        self.peak_bytes = 0

    def read(self, layer: int, rows_R: Tensor, num_slots: int) -> Tensor:
        """The first `num_slots` slots of rows, float32 [R, T]."""
        self._reserve(layer, num_slots)
        return self._layers[layer][rows_R, :num_slots]

    def write(self, layer: int, rows_R: Tensor, scores_RT: Tensor) -> None:
        """Set the first slots of rows."""
        self._reserve(layer, scores_RT.shape[1])
        self._layers[layer][rows_R, : scores_RT.shape[1]] = scores_RT

    def put(
        self, layer: int, rows_R: Tensor, slots_RM: Tensor, scores_RM: Tensor, end: int
    ) -> None:
        """Set single slots of rows, all before `end`."""
        self._reserve(layer, end)
        self._layers[layer][rows_R.unsqueeze(1), slots_RM] = scores_RM

    def replace(self, layer: int, rows_R: Tensor, scores_RT: Tensor, width: int) -> None:
        """These are all slots of rows; no row of the layer needs more than `width`."""
        self._layers[layer][rows_R] = 0
        self.write(layer, rows_R, scores_RT)
        wanted = max(self._rounded(width), scores_RT.shape[1])
        if wanted <= self._layers[layer].shape[1] // 2:
            self._layers[layer] = self._layers[layer][:, :wanted].clone()

    def clear(self, rows_R: Tensor) -> None:
        """Forget rows, in all layers."""
        for scores_RT in self._layers:
            scores_RT[rows_R] = 0

    def _reserve(self, layer: int, num_slots: int) -> None:
        missing = num_slots - self._layers[layer].shape[1]
        if missing <= 0:
            return
        more = self._rounded(missing)
        self._layers[layer] = torch.nn.functional.pad(self._layers[layer], (0, more))
        self.peak_bytes = max(self.peak_bytes, sum(one.nbytes for one in self._layers))

    def _rounded(self, num_slots: int) -> int:
        return -(-num_slots // self._grain) * self._grain
