"""What a system reads, as its kernel and its memory see it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from backends.attention.base import Attended, FrameSelection
from backends.attention.reference import Reference
from memory_tiers.manager import CacheManager


@dataclass(frozen=True)
class Read:
    """What the rows of one sparse call read; rows are (sequence, kv head, new token).

    times_RT: how often each row read each token; seen_R: tokens that it might have read;
    strays: pages read that belong to another row or layer, or twice, and slots of no token's value.
    """

    layer: int
    uids: tuple[str, ...]
    times_RT: Tensor
    seen_R: Tensor
    strays: int
    num_pages: int


class Watcher(Reference):
    """The reference kernel, which notes by page what it is told to read."""

    def __init__(self) -> None:
        self.memory: CacheManager | None = None
        self.decoded: list[tuple[FrameSelection, Tensor, Tensor]] = []
        self.prefilled: list[int] = []
        self.fetched: list[int] = []

    def decode(
        self, query_RGD: Tensor, pool_FPSD: Tensor, selection: FrameSelection, scale: float
    ) -> Attended:
        assert self.memory is not None
        page_of_F = self.memory.fast.page_of_F
        values_NSD = pool_FPSD[selection.frames_N, 1]
        self.decoded.append((selection, page_of_F[selection.frames_N], values_NSD))
        return super().decode(query_RGD, pool_FPSD, selection, scale)

    def prefill(self, query_KMD, key_KTD, value_KTD, mask_MT, scale) -> Attended:
        self.prefilled.append(key_KTD.shape[1])
        return super().prefill(query_KMD, key_KTD, value_KTD, mask_MT, scale)

    def prefill_causal(self, query_KMD, key_KTD, value_KTD, scale) -> Attended:
        self.prefilled.append(key_KTD.shape[1])
        return super().prefill_causal(query_KMD, key_KTD, value_KTD, scale)


def watch_fetches(watcher: Watcher, memory: Any) -> None:
    """Note how many pages each call of `fetch` names."""
    fetch = memory.fetch

    def noted(wanted_N: Tensor, **how: bool) -> Any:
        watcher.fetched.append(wanted_N.numel())
        return fetch(wanted_N, **how)

    memory.fetch = noted
