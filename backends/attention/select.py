"""Choose an attention kernel by its name and the shapes it has to serve."""

import logging

import torch

from backends.attention.base import AttentionKernel
from backends.attention.cpu import Cpu, unsupported
from backends.attention.reference import Reference
from memory_tiers.native import UnavailableError

NAMES = ("auto", Reference.name, Cpu.name)


def choose_kernel(
    name: str, *, device: torch.device | str, dtype: torch.dtype, head_dim: int, page_size: int
) -> AttentionKernel:
    """The kernel called `name`; "auto" is the compiled one where it can be had, else torch."""
    if name not in NAMES:
        raise ValueError(f"backend.kernel={name} is not a kernel; use one of {', '.join(NAMES)}")
    if name == Reference.name:
        return Reference()
    device = torch.device(device)
    reason = unsupported(device=device, dtype=dtype, head_dim=head_dim, page_size=page_size)
    try:
        if reason is None:
            return Cpu(head_dim)
    except UnavailableError as error:
        reason = str(error)
    if name == Cpu.name:
        raise ValueError(
            f"backend.kernel={name} cannot run here: {reason}; use backend.kernel=torch or auto"
        )
    logging.getLogger(__name__).warning("backend.kernel=auto runs torch: %s", reason)
    return Reference()
