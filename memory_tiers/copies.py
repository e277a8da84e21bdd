"""The only code that moves pages between tiers; it counts every byte by tier pair."""

from torch import Tensor

from memory_tiers.counters import Counters
from memory_tiers.tiers.arena import Arena


def copy_pages(
    source: Arena, from_N: Tensor, target: Arena, to_N: Tensor, counters: Counters
) -> None:
    """Copy the content of frames `from_N` of one arena to frames `to_N` of another."""
    if from_N.numel() == 0:
        return
    staged = source.pool_FPSD.index_select(0, from_N.to(source.pool_FPSD.device))
    device = target.pool_FPSD.device
    target.pool_FPSD.index_copy_(0, to_N.to(device), staged.to(device))
    moved = from_N.numel() * source.frame_bytes
    counters.current.bytes_moved[f"{source.name}->{target.name}"] += moved
