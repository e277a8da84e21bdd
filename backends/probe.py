"""What attention keeps of dense attention, seen on a running system: mass recalled, and error.

The probe keeps a copy of every key and value that is stored, also of those that an evictor drops
later and of those that clusters move; dense attention reads the copy, so no tier notices it.
"""

import torch
from torch import Tensor

from backends.attention.base import Attended, AttentionKernel, FrameSelection
from backends.batch import Batch
from memory_tiers.base import KVGeometry
from memory_tiers.page_table import PageTable
from memory_tiers.partition.every_page import every_page

# How far above 1 rounding may lift what is recalled.
SLACK = 0.01


class Probe:
    """Compares decode rows with dense attention over all that their sequences ever stored.

    It takes the memory of all KV of the running requests once more. A layer with a sliding window
    is compared with that window.
    """

    def __init__(
        self, table: PageTable, kernel: AttentionKernel, every: int, *, rebuilt: bool = False
    ) -> None:
        """Compare in the first decode step, and in each `every`-th after it.

        rebuilt: what is read are not the keys that were stored, so that the mass recalled is that
        of other keys, and no more than about right.
        """
        self._geometry: KVGeometry = table.geometry
        self._kernel = kernel
        self._every = every
        self._rebuilt = rebuilt
        self._step = -1
        self._recalled: list[Tensor] = []
        self._error: list[Tensor] = []
        # Attention over what the step read, with its true weights, where it answers otherwise.
        self.read: Attended | None = None
        # A page's frame is its id: frames that nobody writes to are never touched.
        self._pool_FPSD = torch.empty(
            (table.num_pages, 2, self._geometry.page_tokens, self._geometry.head_dim),
            dtype=self._geometry.dtype,
            device=self._geometry.device,
        )

    @property
    def recalled_NLH(self) -> Tensor:
        """Share of dense attention's mass that was read, per sequence and step: float32 [N, L, H].

        Of what was read exactly: an estimate of the rest does not count.
        """
        return self._by_layer(self._recalled)

    @property
    def error_NLH(self) -> Tensor:
        """Norm of the answer's difference to dense attention's, by the norm of that: [N, L, H]."""
        return self._by_layer(self._error)

    def store(self, layer: int, batch: Batch, key_ND: Tensor, value_ND: Tensor) -> None:
        """Keep new keys and values, in the order of rows and their tokens, [R * M, D]."""
        self._batch, self.read = batch, None
        pages_N, slots_N = batch.write_pages(layer), batch.write_slots_N
        self._pool_FPSD[pages_N, 0, slots_N] = key_ND
        self._pool_FPSD[pages_N, 1, slots_N] = value_ND

    def compare(
        self,
        layer: int,
        query_RGD: Tensor,
        answer: Attended,
        scale: float,
        window: int | None,
    ) -> None:
        """Note what a layer of a decode step did, whose tokens were stored last.

        answer: what goes on to the model, which is also what was read where `read` is not set.
        """
        read = self.read or answer
        self._step += layer == 0
        if self._step % self._every:
            return
        batch = self._batch
        pages = every_page(batch.query_rows(layer, window), self._geometry.page_tokens, None)
        chosen = FrameSelection(pages.indptr_R1, pages.pages_N, pages.live_N)
        dense = self._kernel.decode(query_RGD, self._pool_FPSD, chosen, scale)
        recalled_RG = torch.exp(read.lse - dense.lse)
        over_RG = recalled_RG > 1 + SLACK
        assert self._rebuilt or not over_RG.any(), "more was read than was ever stored"
        dense_RGD = dense.out.float()
        off_RG = torch.linalg.vector_norm(answer.out.float() - dense_RGD, dim=-1)
        norm_RG = torch.linalg.vector_norm(dense_RGD, dim=-1)
        num_sequences = len(batch.slots)
        self._recalled.append(recalled_RG.clamp(max=1).reshape(num_sequences, -1).cpu())
        error_RG = off_RG / norm_RG.clamp(min=torch.finfo(torch.float32).tiny)
        self._error.append(error_RG.reshape(num_sequences, -1).cpu())

    def _by_layer(self, layers_BH: list[Tensor]) -> Tensor:
        """The layers of a step beside each other, steps and sequences below each other."""
        num_layers = self._geometry.num_layers
        if not layers_BH:
            return torch.empty(0, num_layers, 0)
        steps = [
            torch.stack(layers_BH[first : first + num_layers], dim=1)
            for first in range(0, len(layers_BH), num_layers)
        ]
        return torch.cat(steps)
