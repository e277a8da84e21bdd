"""The attention kernels that there are here, by name."""

import pytest
import torch

from backends.attention.base import AttentionKernel
from backends.attention.cpu import Cpu
from backends.attention.select import choose_kernel
from memory_tiers.native import UnavailableError

KERNELS = ("torch", "cpu-cpp")
DTYPES = (torch.float32, torch.bfloat16)


def kernel_of(name: str, dtype: torch.dtype, head_dim: int, page_size: int = 16) -> AttentionKernel:
    """The kernel of that name; skips where this machine has no compiler."""
    if name == Cpu.name:
        try:
            Cpu(head_dim)
        except UnavailableError as error:
            pytest.skip(str(error))
    return choose_kernel(name, device="cpu", dtype=dtype, head_dim=head_dim, page_size=page_size)
