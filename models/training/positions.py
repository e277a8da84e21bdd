"""Batches: sentences pushed apart to far positions (PoSE), and noise counted many times over.

PoSE is arXiv:2309.10400, here with gaps between sentences only: inside a sentence the positions
stay contiguous, or the look-back heads would learn nothing.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.sample import Ids, Mark, Sample

MAX_POSITION = 32_768
MAX_DILUTED_TOKENS = 65_536
# Samples end a little beyond their nominal length; what is longer is cut.
NUM_SPARE_TOKENS = 40


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a batch is stretched: share of unstretched samples, and whether noise is diluted."""

    contiguous_share: float = 0.15
    dilute: bool = True


@dataclass(frozen=True)
class Batch:
    """ids_BT, positions_BT: int64; is_answer_BT: bool; key_bias_BT: float32, added to the logits.

    `alternatives` maps (row, column) to all right ids of that place; `num_nominal_tokens` is the
    number of samples times their asked length.
    """

    ids_BT: Tensor
    positions_BT: Tensor
    is_answer_BT: Tensor
    key_bias_BT: Tensor
    alternatives: dict[tuple[int, int], Ids]
    num_nominal_tokens: int


def draw_positions(sample: Sample, contiguous_share: float, rng: random.Random) -> list[int]:
    """Increasing positions of all tokens; gaps stand between segments only."""
    num_tokens = len(sample.ids)
    if rng.random() < contiguous_share:
        return list(range(num_tokens))
    log_span = rng.uniform(math.log(num_tokens), math.log(MAX_POSITION))
    num_free = int(math.exp(log_span)) - num_tokens
    weights = [
        rng.random() ** 3 if index > 0 and rng.random() < 0.7 else 0.0
        for index in range(len(sample.segments))
    ]
    total = sum(weights) or 1.0
    positions: list[int] = []
    start = 0
    for weight, segment in zip(weights, sample.segments, strict=True):
        start += int(num_free * weight / total)
        positions += range(start, start + len(segment.ids))
        start += len(segment.ids)
    return positions


def pack(samples: Sequence[Sample], num_tokens: int, spread: Spread, rng: random.Random) -> Batch:
    """One padded batch of one width; padding stands behind the sample and carries no loss."""
    width = num_tokens + NUM_SPARE_TOKENS
    shape = (len(samples), width)
    batch = Batch(
        ids_BT=torch.zeros(shape, dtype=torch.int64),
        positions_BT=torch.zeros(shape, dtype=torch.int64),
        is_answer_BT=torch.zeros(shape, dtype=torch.bool),
        key_bias_BT=torch.zeros(shape),
        alternatives={
            (row, column): ids
            for row, sample in enumerate(samples)
            for column, ids in sample.alternatives.items()
            if column < width
        },
        num_nominal_tokens=len(samples) * num_tokens,
    )
    for row, sample in enumerate(samples):
        positions = draw_positions(sample, spread.contiguous_share, rng)
        num_kept = min(len(positions), width)
        batch.ids_BT[row, :num_kept] = torch.tensor(sample.ids[:num_kept])
        batch.is_answer_BT[row, :num_kept] = torch.tensor(sample.is_answer[:num_kept])
        batch.positions_BT[row, :num_kept] = torch.tensor(positions[:num_kept])
        after = positions[num_kept - 1] + 1
        batch.positions_BT[row, num_kept:] = torch.arange(after, after + width - num_kept)
        if spread.dilute:
            bias = draw_dilution(sample, span=positions[-1] + 1, rng=rng)
            batch.key_bias_BT[row, :num_kept] = torch.tensor(bias[:num_kept])
    return batch


def draw_dilution(sample: Sample, *, span: int, rng: random.Random) -> list[float]:
    """Per token ln(m): the softmax sees m copies of noise, half the time of unasked needles too."""
    num_tokens = len(sample.ids)
    if rng.random() >= 0.8:
        return [0.0] * num_tokens
    longest = MAX_DILUTED_TOKENS if rng.random() < 0.7 else span
    log_copies = max(0.0, math.log(longest / num_tokens)) * rng.random()
    bias = {Mark.PLAIN: 0.0, Mark.NOISE: log_copies, Mark.DISTRACTOR: 0.0}
    if rng.random() < 0.5:
        bias[Mark.DISTRACTOR] = log_copies
    return [bias[mark] for mark in sample.marks]
