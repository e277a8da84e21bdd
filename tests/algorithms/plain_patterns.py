"""The published choices of prefill patterns, as loops over heads, rows and keys in float64.

Each function gives, by query head and block of rows, the set of chosen key blocks, before the first
block and the rows' own are added; MInference also the columns of each head. `seen_by` is what any
plan comes to.
"""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from sparse_algos.pattern import BlockPlan, Chunk

Choice = dict[tuple[int, int], set[int]]


def seen_by(plan: BlockPlan, past: int, new: int) -> Tensor:
    """Which keys each row attends, bool [H, M, T]."""
    size, total = plan.block_tokens, past + new
    row_M, key_T = torch.arange(past, total), torch.arange(total)
    seen_HMT = plan.blocks_HIP[:, row_M // size - plan.first_block][:, :, key_T // size]
    if plan.columns_HC is not None:
        column_HT = torch.zeros(len(seen_HMT), total, dtype=torch.bool)
        column_HT.scatter_(1, plan.columns_HC, True)
        seen_HMT = seen_HMT | column_HT.unsqueeze(1) & (key_T // size < (row_M // size)[:, None])
    return seen_HMT & (key_T <= row_M.unsqueeze(1))


def heads_of(chunk: Chunk) -> list[tuple[list[list[float]], list[list[float]]]]:
    """Rows and keys of each query head, as lists of vectors."""
    queries = chunk.query_KGMD.double().tolist()
    keys = chunk.key_KTD.double().tolist()
    return [(rows, key) for of_group, key in zip(queries, keys, strict=True) for rows in of_group]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(each - top) for each in logits]
    return [each / sum(weights) for each in weights]


def strongest(mass: Sequence[float], count: int, forced: int) -> set[int]:
    """The first `forced`, then the largest, left before right."""
    order = sorted(
        range(len(mass)), key=lambda at: (at >= forced, -mass[at] if at >= forced else 0)
    )
    return set(order[:count])


def row_blocks(chunk: Chunk, size: int) -> range:
    return range(chunk.past // size, -(-chunk.num_tokens // size))


def line_masses(rows, keys, chunk: Chunk, last: int) -> tuple[list[float], list[float], int]:
    """What the last rows give to each key, and to each distance."""
    total = chunk.num_tokens
    columns, distances = [0.0] * total, [0.0] * total
    last = min(last, len(rows))
    for back in range(last, 0, -1):
        position = total - back
        logits = [chunk.scale * dot(rows[-back], keys[at]) for at in range(position + 1)]
        for at, weight in enumerate(softmax(logits)):
            columns[at] += weight
            distances[position - at] += weight
    return columns, distances, last


def plain_a_shape(pattern, chunk: Chunk) -> Choice:
    size, choice = pattern.block_tokens, {}
    for head in range(chunk.num_heads):
        for block in row_blocks(chunk, size):
            seen = set()
            for row in range(block * size, (block + 1) * size):
                for key in range(row + 1):
                    if key < pattern.sinks or key > row - pattern.local_tokens:
                        seen.add(key // size)
            choice[head, block] = seen
    return choice


def plain_minference(pattern, chunk: Chunk) -> tuple[Choice, list[set[int]]]:
    size, choice, columns_of = pattern.block_tokens, {}, []
    for head, (rows, keys) in enumerate(heads_of(chunk)):
        columns, distances, _ = line_masses(rows, keys, chunk, pattern.last_rows)
        columns_of.append(strongest(columns, pattern.vertical, pattern.sinks))
        slashes = strongest(distances, pattern.slash, pattern.recents)
        for block in row_blocks(chunk, size):
            choice[head, block] = {
                (row - slash) // size
                for row in range(block * size, (block + 1) * size)
                for slash in slashes
                if row >= slash
            }
    return choice, columns_of


def means(vectors: Sequence[Sequence[float]], first: int, size: int) -> dict[int, list[float]]:
    """The mean of the vectors of each block of the grid; `first` is the place of the first one."""
    blocks = defaultdict(list)
    for at, vector in enumerate(vectors):
        blocks[(first + at) // size].append(vector)
    return {
        block: [sum(column) / len(members) for column in zip(*members, strict=True)]
        for block, members in blocks.items()
    }


def divergence(one: Sequence[float], other: Sequence[float]) -> float:
    total = 0.0
    for a, b in zip(one, other, strict=True):
        middle = (a + b) / 2
        total += sum(each * math.log(each / middle) / 2 for each in (a, b) if each > 0)
    return math.sqrt(max(total, 0.0))


def fewest(mass: Sequence[float], share: float) -> int:
    """How many of the largest reach the share."""
    total = 0.0
    for count, each in enumerate(sorted(mass, reverse=True), 1):
        total += each
        if total >= share:
            return count
    return len(mass)


def sums_by_block(mass: Sequence[float], size: int) -> list[float]:
    return [sum(mass[at : at + size]) for at in range(0, len(mass), size)]


def plain_flexprefill(pattern, chunk: Chunk) -> Choice:
    size, choice = pattern.block_tokens, {}
    num_blocks = -(-chunk.num_tokens // size)
    least = min(-(-pattern.least_tokens // size), num_blocks)
    for head, (rows, keys) in enumerate(heads_of(chunk)):
        columns, distances, last = line_masses(rows, keys, chunk, size)
        columns = [each / last for each in columns]
        distances = [each / last for each in distances]
        key_means = means(keys, 0, size)
        mean = [sum(column) / last for column in zip(*rows[-last:], strict=True)]
        guess = softmax([chunk.scale * dot(mean, key_means[at]) for at in range(num_blocks)])
        is_aware = divergence(guess, sums_by_block(columns, size)) < pattern.tau
        lines = []
        for mass in (columns, distances):
            count = fewest(mass, pattern.gamma) // size + 1
            count = least if is_aware else min(max(count, least), num_blocks)
            lines.append(strongest(sums_by_block(mass, size), count, 1))
        blocks = row_blocks(chunk, size)
        for block in blocks:
            choice[head, block] = lines[0] | {block - gap for gap in lines[1] if gap <= block}
        if is_aware:
            for row, key in plain_map(rows, key_means, chunk, pattern):
                choice[head, row].add(key)
    return choice


def plain_map(rows, key_means, chunk: Chunk, pattern) -> list[tuple[int, int]]:
    """The blocks of most mass over the whole map, until the share of it is reached."""
    row_means = means(rows, chunk.past, pattern.block_tokens)
    mass = {}
    for row, mean in row_means.items():
        weights = softmax([chunk.scale * dot(mean, key_means[at]) for at in range(row + 1)])
        mass |= {(row, at): weight for at, weight in enumerate(weights)}
    taken, total = [], 0.0
    for at in sorted(mass, key=lambda at: (-mass[at], at)):
        if total >= pattern.gamma * len(row_means):
            break
        taken.append(at)
        total += mass[at]
    return taken


def plain_xattention(pattern, chunk: Chunk) -> Choice:
    size, choice = pattern.block_tokens, {}
    for head, (rows, keys) in enumerate(heads_of(chunk)):
        for block in row_blocks(chunk, size):
            mass = antidiagonal_mass(rows, keys, chunk, pattern, block)
            choice[head, block] = reaching(mass, {0, block}, pattern.threshold * sum(mass))
    return choice


def antidiagonal_mass(rows, keys, chunk: Chunk, pattern, block: int) -> list[float]:
    """Estimated mass of each block that a block of rows sees."""
    size, stride = pattern.block_tokens, pattern.stride
    mass = [0.0] * (block + 1)
    for u in range(block * size // stride, (block + 1) * size // stride):
        if chunk.past < (u + 1) * stride and u * stride < chunk.num_tokens:
            logits = [folded(rows, keys, chunk, stride, u, v) for v in range(u + 1)]
            for v, weight in enumerate(softmax(logits)):
                mass[v * stride // size] += weight
    return mass


def folded(rows, keys, chunk: Chunk, stride: int, u: int, v: int) -> float:
    """The sum of the logits along an antidiagonal; what is not there adds nothing."""
    total = 0.0
    for step in range(stride):
        row, key = u * stride + stride - 1 - step - chunk.past, v * stride + step
        if 0 <= row < len(rows) and key < len(keys):
            total += dot(rows[row], keys[key])
    return total * chunk.scale / stride


def reaching(mass: Sequence[float], taken: set[int], needed: float) -> set[int]:
    """What is taken already, and the largest of the others until the need is met."""
    taken = set(taken)
    for at in sorted(set(range(len(mass))) - taken, key=lambda at: (-mass[at], at)):
        if sum(mass[one] for one in taken) >= needed:
            break
        taken.add(at)
    return taken
