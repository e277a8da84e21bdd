"""Placeholder until the disk tier lands."""

from torch import Tensor


class DamagedPagesError(ValueError):
    """Content was lost."""

    frames_N: Tensor
