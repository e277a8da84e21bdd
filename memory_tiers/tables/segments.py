"""Values by address in segments of 64 that are there only while something is kept in them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memory_tiers.base import PAGES_PER_GROUP

GROUP = PAGES_PER_GROUP
FILL_SEGMENT = 0


class SegmentsView(NamedTuple):
    """How segments lie in memory.

    directory_G: int32 [G], a group's place in the pool, 0 where it has none; pool_NE [N, 64, ...].
    """

    directory_G: Tensor
    pool_NE: Tensor


class Segments:
    """A directory per group of 64 addresses over a pool of segments; freed ones are reused."""

    def __init__(
        self,
        num_addresses: int,
        shape: Sequence[int],
        fill: int | float,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Every address holds `fill`; shape: of one value."""
        num_groups = -(-num_addresses // GROUP)
        self._fill = fill
        self._directory_G = torch.full(
            (num_groups,), FILL_SEGMENT, dtype=torch.int32, device=device
        )
        # Segment 0 is nobody's and holds the fill, which makes reading one look-up for all.
        self._pool_NE = torch.full((1, GROUP, *shape), fill, dtype=dtype, device=device)
        self._free = self._directory_G[:0].clone()

    def read(self, addresses_N: Tensor) -> Tensor:
        """Values, [N, ...] for addresses of any shape N."""
        return self._pool_NE.flatten(0, 1)[self._places(addresses_N)]

    def read_groups(self, groups_N: Tensor) -> Tensor:
        """All 64 values of groups, [N, 64, ...]: many times faster than one by one."""
        return self._pool_NE.index_select(0, self._directory_G[groups_N])

    def write(self, addresses_N: Tensor, values_N: Tensor) -> None:
        """Set values, each address named once; segments come to be where there are none."""
        self.reserve(addresses_N)
        self._pool_NE.view(-1, *self._pool_NE.shape[2:])[self._places(addresses_N)] = values_N

    def reserve(self, addresses_N: Tensor) -> None:
        """Make sure that these addresses have a place; new ones hold the fill."""
        group_N = addresses_N >> 6
        absent_U = group_N[self._directory_G[group_N] == FILL_SEGMENT].unique()
        self._reserve(absent_U)
        self._pool_NE[self._directory_G[absent_U].long()] = self._fill

    def write_groups(self, groups_U: Tensor, values_UE: Tensor) -> None:
        """Set all 64 values of groups, each named once: [U, 64, ...]."""
        self._reserve(groups_U[self._directory_G[groups_U] == FILL_SEGMENT])
        self._pool_NE[self._directory_G[groups_U].long()] = values_UE

    def release(self, groups_U: Tensor) -> None:
        """Give back the segments of these groups, each named once; they hold the fill again."""
        segments_U = self._directory_G[groups_U]
        self._free = torch.cat((self._free, segments_U[segments_U != FILL_SEGMENT]))
        self._directory_G[groups_U] = FILL_SEGMENT

    def view(self) -> SegmentsView:
        """Directory and pool as they lie in memory; valid until the next update."""
        return SegmentsView(self._directory_G, self._pool_NE)

    def num_bytes(self) -> dict[str, int]:
        """Bytes allocated now: `directory`, `segments` in use, and `reserved` beyond them."""
        num_used = len(self._pool_NE) - 1 - len(self._free)
        segments = num_used * self._pool_NE[0].nbytes
        return {
            "directory": self._directory_G.nbytes,
            "segments": segments,
            "reserved": self._pool_NE.nbytes - segments + self._free.nbytes,
        }

    def _places(self, addresses_N: Tensor) -> Tensor:
        """Where addresses lie in the pool."""
        segment_N = self._directory_G[addresses_N >> 6].long()
        return (segment_N << 6) + (addresses_N & (GROUP - 1))

    def _reserve(self, groups_U: Tensor) -> None:
        """Allocate segments, which hold anything, for groups that have none, each named once."""
        if not groups_U.numel():
            return
        if len(groups_U) > len(self._free):
            self._grow(len(groups_U) - len(self._free))
        kept = len(self._free) - len(groups_U)
        taken_U = self._free[kept:]
        self._free = self._free[:kept].clone()
        self._directory_G[groups_U] = taken_U

    def _grow(self, least: int) -> None:
        have = len(self._pool_NE)
        size = have + max(least, have // 2)
        pool_NE = self._pool_NE.new_empty((size, *self._pool_NE.shape[1:]))
        pool_NE[:have] = self._pool_NE
        fresh = torch.arange(size - 1, have - 1, -1, dtype=torch.int32, device=pool_NE.device)
        self._pool_NE, self._free = pool_NE, torch.cat((fresh, self._free))
