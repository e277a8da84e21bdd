"""The last queries of each row, for retrievers that summarise keys by the queries that follow."""

import torch
from torch import Tensor

from backends.batch import Batch
from memory_tiers.page_table import PageTable


class QueryTail:
    """Means over the query group, float32, of the last `width` tokens of each row and layer."""

    def __init__(self, table: PageTable, width: int) -> None:
        """Room for every row; token t stands at t % width."""
        geometry = table.geometry
        rows = geometry.num_layers * table.num_rows
        self._width = width
        self._ring_RWD = torch.zeros(rows, width, geometry.head_dim, device=table.device)
        self._now_RTD = self._ring_RWD[:0]
        self._start = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the ring."""
        return self._ring_RWD.numel() * self._ring_RWD.itemsize

    def add(self, layer: int, batch: Batch, query_NGD: Tensor) -> None:
        """Lay a batch's queries behind what the ring holds; one sequence where it has a chunk."""
        rows_R = batch.index_rows(layer)
        mean_RMD = query_NGD.float().mean(dim=1).unflatten(0, (len(rows_R), -1))
        if batch.new == 1:
            self._ring_RWD[rows_R, batch.stored_R % self._width] = mean_RMD[:, 0]
            return
        before = batch.longest - batch.new
        self._start = max(0, before - self._width)
        token_T = torch.arange(self._start, before, device=rows_R.device)
        kept_RTD = self._ring_RWD[rows_R.unsqueeze(1), token_T % self._width]
        self._now_RTD = torch.cat((kept_RTD, mean_RMD), dim=1)

    def since(self, layer: int, start: int) -> Tensor:
        """Queries of the chunk's sequence from token `start` on, [K, T, D]."""
        assert start >= self._start, "what is summarised now is no older than the ring"
        return self._now_RTD[:, start - self._start :]

    def last(self, layer: int, batch: Batch) -> Tensor:
        """The last `width` queries of each row of a decode batch, oldest first, [R, width, D]."""
        oldest_R1 = (batch.stored_R + 1 - self._width).unsqueeze(1)
        token_RW = oldest_R1 + torch.arange(self._width, device=oldest_R1.device)
        return self._ring_RWD[batch.index_rows(layer).unsqueeze(1), token_RW % self._width]

    def of(self, rows_K: Tensor) -> Tensor:
        """All that the ring holds of rows, to be put back."""
        return self._ring_RWD[rows_K]

    def put_back(self, rows_K: Tensor, ring_KWD: Tensor) -> None:
        """Rows hold what `of` told."""
        self._ring_RWD[rows_K] = ring_KWD

    def keep(self, layer: int, batch: Batch) -> None:
        """Take the end of a chunk into the ring."""
        if batch.new == 1:
            return
        rows_R1 = batch.index_rows(layer).unsqueeze(1)
        tail_RTD = self._now_RTD[:, -self._width :]
        token_T = torch.arange(batch.longest - tail_RTD.shape[1], batch.longest)
        self._ring_RWD[rows_R1, token_T.to(rows_R1.device) % self._width] = tail_RTD
