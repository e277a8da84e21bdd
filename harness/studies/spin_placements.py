"""Which pages of a row are in the fast tier: working sets from the worst case to the best."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class WorkingSet(NamedTuple):
    """Sizes in pages; run_pages: pages of one run, a divisor of the two others."""

    pages_per_row: int
    live_pages: int
    run_pages: int


Placement = Callable[[int, WorkingSet, torch.Generator], Tensor]


def at_random(num_rows: int, size: WorkingSet, generator: torch.Generator) -> Tensor:
    """Single pages anywhere, every set as likely as any other: ascending indices [R, N]."""
    return _distinct(num_rows, size.pages_per_row, size.live_pages, generator)


def in_runs(num_rows: int, size: WorkingSet, generator: torch.Generator) -> Tensor:
    """Runs of consecutive pages anywhere, at multiples of their length: [R, N]."""
    num_runs = size.live_pages // size.run_pages
    runs_RN = _distinct(num_rows, size.pages_per_row // size.run_pages, num_runs, generator)
    pages_RNE = runs_RN.unsqueeze(2) * size.run_pages + torch.arange(size.run_pages)
    return pages_RNE.flatten(1)


def contiguous(num_rows: int, size: WorkingSet, generator: torch.Generator) -> Tensor:
    """One stretch that starts anywhere: [R, N]."""
    last = size.pages_per_row - size.live_pages
    start_R1 = torch.randint(last + 1, (num_rows, 1), generator=generator)
    return start_R1 + torch.arange(size.live_pages)


PLACEMENTS: Mapping[str, Placement] = {
    "random": at_random,
    "runs": in_runs,
    "contiguous": contiguous,
}


def _distinct(num_rows: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` numbers below `size` for each row, none of them twice, ascending: [R, N]."""
    first_R1 = torch.arange(num_rows).unsqueeze(1) * size
    drawn_N = (first_R1 + torch.randint(size, (num_rows, count), generator=generator)).flatten()
    while True:
        drawn_N = drawn_N.sort().values
        again = (drawn_N[1:] == drawn_N[:-1]).nonzero().squeeze(1)
        if not again.numel():
            return drawn_N.view(num_rows, count) - first_R1
        # Drawn anew from the same row; no number is preferred, so all sets stay alike.
        fresh_N = torch.randint(size, again.shape, generator=generator)
        drawn_N[again] = drawn_N[again] // size * size + fresh_N
