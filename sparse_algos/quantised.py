"""Keys of 4 bits: what estimates products with queries at a quarter of the bytes."""

import torch
from torch import Tensor

from sparse_algos.retriever import Summaries

LEVELS = 15
# What float16, the dtype of the range, can hold.
MOST = 65504.0


def packed(key_ND: Tensor) -> Summaries:
    """Keys [..., D], rounded to 16 levels between the least and the largest channel of each.

    code: uint8 [..., D / 2], channel 2 i in the lower half of byte i; range: float16 [..., 2], the
    width of a level and the lowest one, so that channel = width * level + lowest.
    """
    key_ND = key_ND.float().nan_to_num().clamp(-MOST, MOST)
    lowest_N1 = key_ND.amin(-1, keepdim=True).half()
    span_N1 = key_ND.amax(-1, keepdim=True) - lowest_N1.float()
    width_N1 = (span_N1 / LEVELS).clamp(max=MOST).half()
    steps_ND = (key_ND - lowest_N1.float()) / width_N1.float().masked_fill(width_N1 == 0, 1)
    level_ND = steps_ND.round().clamp(0, LEVELS).to(torch.uint8)
    code_NE = level_ND[..., 0::2] | level_ND[..., 1::2] << 4
    return {"code": code_NE, "range": torch.cat((width_N1, lowest_N1), dim=-1)}


def unpacked(summaries: Summaries) -> Tensor:
    """The rounded keys, float32 [..., D]."""
    code_NE, range_N2 = summaries["code"], summaries["range"].float()
    level_ND = torch.stack((code_NE & LEVELS, code_NE >> 4), dim=-1).flatten(-2)
    return level_ND.float() * range_N2[..., :1] + range_N2[..., 1:]


def products(summaries: Summaries, query_RQD: Tensor) -> Tensor:
    """Dot products of queries with rounded keys [R, P, ...], float32 [R, Q, P]."""
    # Keys first: torch multiplies several times faster than in the other order.
    return (unpacked(summaries) @ query_RQD.float().mT).mT
