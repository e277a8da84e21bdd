"""Memory for pools: large pages of the system where it has them."""

import mmap

import torch
from torch import Tensor


def huge_empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of any content; its memory becomes real when it is written.

    Raises OSError where the system refuses the address space.
    """
    count = torch.Size(shape).numel()
    if device.type != "cpu" or count == 0:
        return torch.empty(shape, dtype=dtype, device=device)
    # Private and huge: shared maps get no 2 MiB pages, and random page reads need them.
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)
