"""The smallest sets that hold a given share of a mass."""

import torch
from torch import Tensor


def covering(mass_NP: Tensor, needed_N: Tensor, first_NP: Tensor | None = None) -> Tensor:
    """The fewest entries of each row whose sum reaches what is needed, bool [N, P].

    The largest are taken first, the left of equal ones; first_NP: bool [N, P], entries taken before
    any other. A row that never gets there takes all; an entry of nothing is never needed.
    """
    mass_NP = mass_NP.double()
    if first_NP is None:
        first_NP = torch.zeros_like(mass_NP, dtype=torch.bool)
    order_NP = mass_NP.masked_fill(first_NP, torch.inf).argsort(dim=1, descending=True, stable=True)
    sorted_NP = mass_NP.gather(1, order_NP)
    before_NP = sorted_NP.cumsum(1) - sorted_NP
    taken_NP = before_NP < needed_N.double().unsqueeze(1)
    return torch.zeros_like(first_NP).scatter_(1, order_NP, taken_NP) | first_NP


def num_covering(mass_NP: Tensor, share: float) -> Tensor:
    """How many of the largest entries of each row reach a share of one, int64 [N], at least 1."""
    sums_NP = mass_NP.double().sort(dim=1, descending=True).values.cumsum(1)
    return (sums_NP < share).sum(1).clamp(max=mass_NP.shape[1] - 1) + 1
