"""Addresses of pages, and which of their slots were evicted for good."""

import torch
from torch import Tensor

from memory_tiers.base import PAGES_PER_GROUP, KVGeometry, Rows


class PageTable:
    """Page ids of all sequences, layers and kv heads, whether the pages exist or not.

    The pages of a row are a whole number of groups, the grain of the frame tables.
    """

    def __init__(
        self,
        geometry: KVGeometry,
        num_sequences: int,
        max_tokens: int,
        own_pages: int = 0,
        *,
        layered: bool = True,
    ) -> None:
        """Room for `num_sequences` sequences of at most `max_tokens` tokens.

        own_pages: pages of a row behind those of its tokens, for partitions that leave these;
        layered: whether layers have page ids of their own, and do not lie in pools of their own.
        """
        self.geometry = geometry
        self.device = geometry.device
        self.num_sequences = num_sequences
        self.max_tokens = max_tokens
        self.num_rows = num_sequences * geometry.num_kv_heads
        # From a row on one layer to the same row on the next.
        self.layer_rows = self.num_rows if layered else 0
        self.token_pages = -(-max_tokens // geometry.page_tokens)
        groups = -(-(self.token_pages + own_pages) // PAGES_PER_GROUP)
        self.pages_per_row = groups * PAGES_PER_GROUP
        self.num_pages = geometry.num_layers * self.num_rows * self.pages_per_row
        self.dead_P: Tensor | None = None

    def bury(self, pages_N: Tensor, bits_N: Tensor) -> Tensor:
        """Mark slots as evicted for good and return all dead bits of these pages."""
        if self.dead_P is None:
            self.dead_P = torch.zeros(self.num_pages, dtype=torch.int64, device=self.device)
        dead_N = self.dead_P[pages_N] | bits_N
        self.dead_P[pages_N] = dead_N
        return dead_N

    def revive(self, pages_N: Tensor) -> None:
        """Slots of these pages are as good as new."""
        if self.dead_P is not None:
            self.dead_P[pages_N] = 0

    def live_slots(self, rows: Rows) -> Tensor:
        """Slots of each row that hold a token, bool [R, T]: whole pages, up to the longest."""
        size, device = self.geometry.page_tokens, self.device
        pages = -(-max(rows.longest, 1) // size)
        live_RT = torch.arange(pages * size, device=device) < rows.num_tokens_R.unsqueeze(1)
        if self.dead_P is None:
            return live_RT
        bits_RP = self.dead_P[rows.first_page_R.unsqueeze(1) + torch.arange(pages, device=device)]
        dead_RPS = bits_RP.unsqueeze(2) >> torch.arange(size, device=device) & 1
        return live_RT & ~dead_RPS.bool().flatten(1)

    def rows_of(self, slots_B: Tensor) -> Tensor:
        """Row numbers of whole sequences, kv heads innermost: int64 [B * K]."""
        heads_K = torch.arange(self.geometry.num_kv_heads, device=slots_B.device)
        return (slots_B.unsqueeze(1) * self.geometry.num_kv_heads + heads_K).flatten()

    def sequences_of(self, pages_N: Tensor) -> Tensor:
        """The sequence slot that each page belongs to, int64 [N]."""
        per_sequence = self.pages_per_row * self.geometry.num_kv_heads
        if self.geometry.num_layers == 1:
            return pages_N // per_sequence
        return pages_N // per_sequence % self.num_sequences

    def first_page(self, layer: int, rows_R: Tensor) -> Tensor:
        """Id of page 0 of each row in a layer, int64 [R]."""
        return (rows_R + layer * self.layer_rows) * self.pages_per_row

    def pages_behind(self, layer: int, slot: int, num_tokens: int) -> Tensor:
        """Ids of pages of a sequence's later tokens that hold none of its first `num_tokens`."""
        rows_K = self.rows_of(torch.tensor([slot], device=self.device))
        first = -(-num_tokens // self.geometry.page_tokens)
        page_P = torch.arange(first, self.token_pages, device=self.device)
        return (self.first_page(layer, rows_K).unsqueeze(1) + page_P).flatten()

    def pages_of_sequence(self, slot: int) -> Tensor:
        """Ids of all pages that a sequence can have, over all layers and kv heads."""
        geometry = self.geometry
        per_sequence = geometry.num_kv_heads * self.pages_per_row
        layers_L1 = torch.arange(geometry.num_layers, device=self.device).unsqueeze(1)
        first_L1 = (layers_L1 * self.num_sequences + slot) * per_sequence
        return (first_L1 + torch.arange(per_sequence, device=self.device)).flatten()

    def alive(self, rows: Rows, partition_size: int) -> Tensor | None:
        """Which partitions of each row still hold a token, bool [R, P]; None when all do."""
        if self.dead_P is None:
            return None
        size, device = self.geometry.page_tokens, self.dead_P.device
        pages = torch.arange(-(-rows.longest // size), device=device)
        bits_RP1 = self.dead_P[rows.first_page_R.unsqueeze(1) + pages].unsqueeze(2)
        live_RT = ~(bits_RP1 >> torch.arange(size, device=device) & 1).bool().flatten(1)
        num_tokens = -(-rows.longest // partition_size) * partition_size
        live_RT = torch.nn.functional.pad(live_RT, (0, num_tokens - live_RT.shape[1]))
        return live_RT.unflatten(1, (-1, partition_size)).any(dim=2)
