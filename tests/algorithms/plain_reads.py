"""What a running system reads, against a formula that is evaluated token by token."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tests.laws import system as running
from tests.laws.configs import settings_of
from tests.laws.laws import converse, tokens_read
from tests.laws.system import Shape, Stream, System, build_system, stream_of

SHAPE = Shape(layers=3, kv_heads=2, group=2, head_dim=8)
TIGHT = 40
# Query heads of a kv head, position of a row, and a partition's tokens -> its score per query head.
Formula = Callable[[Tensor, Tensor, int, list[int]], list[float]]


def random_stream(uid: str, shape: Shape) -> Stream:
    return stream_of(uid, shape)


def huge_stream(uid: str, shape: Shape) -> Stream:
    """Some keys and queries are thirty times as long as others."""
    query, key, value = vars(random_stream(uid, shape)).values()
    scale_T11 = torch.where(torch.arange(key.shape[1]) % 7 == 3, 30.0, 1.0).view(-1, 1, 1)
    return Stream(query * scale_T11, key * scale_T11, value)


STREAMS = {"random": random_stream, "huge": huge_stream}


def conversation(algo: str, stream: Callable[[str, Shape], Stream], monkeypatch) -> System:
    """A running system that was asked about these tensors."""
    made = {uid: stream(uid, SHAPE) for uid in ("long", "short", "middle")}
    monkeypatch.setattr(running, "stream_of", lambda uid, _: made[uid])
    return converse(build_system(settings_of(algo), SHAPE, TIGHT))


def assert_reads_follow(
    system: System,
    stream: Callable[[str, Shape], Stream],
    layer: int,
    formula: Callable[[Stream, int, int, int, list[int]], list[float]],
    scored_layer: int | None = None,
) -> None:
    """Each row of a layer reads its sinks, its recents and the best of the other partitions.

    formula: (stream, layer, kv head, position, tokens of a partition) -> a score per query head.
    """
    retrieve, skipped = system.attention.algorithm.retrieve, 0
    size = retrieve.partition_size
    for (uid, at), seen_KTT in tokens_read(system).items():
        if at != layer:
            continue
        tensors = stream(uid, SHAPE)
        for head in range(SHAPE.kv_heads):
            for position in seen_KTT[head].any(1).nonzero().squeeze(1).tolist():
                seen = position + 1
                parts = [list(range(p, min(p + size, seen))) for p in range(0, seen, size)]
                read = set(seen_KTT[head, position].nonzero().squeeze(1).tolist())
                chosen = [n for n, part in enumerate(parts) if set(part) <= read]
                assert read == {token for n in chosen for token in parts[n]}
                source = layer if scored_layer is None else scored_layer
                scores = [formula(tensors, source, head, position, part) for part in parts]
                skipped += len(parts) - len(chosen)
                assert_best(chosen, parts, scores, retrieve, seen)
    assert skipped > 0, "nothing was skipped: the test is empty"


def assert_best(
    chosen: list[int], parts: list[list[int]], scores: list[list[float]], retrieve, seen: int
) -> None:
    """Forced ones are there, the number is right, and none left out is better than one taken."""
    size = retrieve.partition_size
    forced = {
        n
        for n in range(len(parts))
        if n * size < retrieve.sinks or (n + 1) * size > seen - retrieve.recents
    }
    assert forced <= set(chosen)
    assert len(chosen) == min(len(parts), retrieve.most_tokens(seen) // size)
    worth = worths(retrieve.group_reduce, scores)
    taken = [worth[n] for n in chosen if n not in forced]
    left = [worth[n] for n in range(len(parts)) if n not in chosen]
    slack = 1e-2 * max(map(abs, worth), default=0.0)
    assert not taken or not left or min(taken) >= max(left) - slack


def worths(how: str, scores: list[list[float]]) -> list[float]:
    """One number per partition from those of the query heads."""
    if how == "max":
        return [max(row) for row in scores]
    totals = []
    for head in range(len(scores[0])):
        column = [row[head] for row in scores]
        top = max(column)
        weights = [math.exp(one - top) for one in column]
        totals.append([one / sum(weights) for one in weights])
    return [sum(pair) for pair in zip(*totals, strict=True)]


def dot(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))
