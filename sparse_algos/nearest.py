"""The nearest of many directions, found block by block while the products are in the cache."""

from typing import NamedTuple

import torch
from torch import Tensor

# Products held at one time: on a CPU they must stay in its caches, elsewhere fill the device.
CPU_ELEMENTS = 1 << 21
DEVICE_ELEMENTS = 1 << 24
# The best of so many is found first: an argmax over all of them costs more than the products.
GROUP = 32


class _Largest(NamedTuple):
    value_B: Tensor
    at_B: Tensor


def nearest(keys_NTD: Tensor, centroids_NPD: Tensor) -> Tensor:
    """The centroid of largest dot product with each key, int64 [N, T].

    Keys and centroids have one dtype; products are summed in float32 and rounded to it.
    """
    rows, tokens, _ = keys_NTD.shape
    count = centroids_NPD.shape[1]
    groups = -(-count // GROUP)
    most = CPU_ELEMENTS if keys_NTD.is_cpu else DEVICE_ELEMENTS
    block = max(1, min(tokens, most // (groups * GROUP)))
    # Used again: fresh pages for every block cost as much as the products.
    room = keys_NTD.new_empty(groups * GROUP * block)
    labels_NT = torch.empty(rows, tokens, dtype=torch.int64, device=keys_NTD.device)
    for keys_TD, centroids_PD, labels_T in zip(keys_NTD, centroids_NPD, labels_NT, strict=True):
        for start in range(0, tokens, block):
            part_BD = keys_TD[start : start + block]
            products_PB = room[: groups * GROUP * len(part_BD)].view(-1, len(part_BD))
            products_PB[count:] = -torch.inf
            torch.mm(centroids_PD, part_BD.mT, out=products_PB[:count])
            labels_T[start : start + block] = _largest(products_PB)
    return labels_NT


def _largest(products_PB: Tensor) -> Tensor:
    """The row that has the largest entry of each column; rows fill whole groups."""
    if products_PB.dtype == torch.bfloat16:
        # The bits of numbers above 0 rank as they do, and integers are compared much faster.
        found = _largest_in_groups(products_PB.view(torch.int16))
        if bool((found.value_B >= 0).all()):
            return found.at_B
    return _largest_in_groups(products_PB).at_B


def _largest_in_groups(products_PB: Tensor) -> _Largest:
    products_NGB = products_PB.unflatten(0, (-1, GROUP))
    group_B = products_NGB.amax(dim=1).max(dim=0).indices
    value_B, nth_B = products_NGB.gather(0, group_B.expand(1, GROUP, -1))[0].max(dim=0)
    return _Largest(value_B, group_B * GROUP + nth_B)
