"""What retrievers rank partitions by, as their papers say it: loops over tokens, in Python floats.

Keys are [K][T][D] and queries [K][T][G][D], nested lists of one sequence and layer.
"""

import math
from typing import Any

from sparse_algos.retriever import Retriever

Vectors = Any
NEVER, ALWAYS = -math.inf, math.inf


def dot(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))


def mean_of(vectors: list[list[float]]) -> list[float]:
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def cosine(one: list[float], other: list[float]) -> float:
    size = math.sqrt(dot(one, one) * dot(other, other))
    return dot(one, other) / size if size else 0.0


def softmax(logits: list[float]) -> list[float]:
    top = max(logits, default=0.0)
    weights = [math.exp(logit - top) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def forced(retriever: Retriever, num_tokens: int) -> set[int]:
    """Partitions of sinks and recents, of those that a row of so many tokens has."""
    size, found = retriever.partition_size, set()
    for token in range(num_tokens):
        if token < retriever.sinks or token >= num_tokens - retriever.recents:
            found.add(token // size)
    return found


def others(retriever: Retriever, num_tokens: int) -> list[int]:
    """The rest of its partitions."""
    partitions = range(-(-num_tokens // retriever.partition_size))
    return sorted(set(partitions) - forced(retriever, num_tokens))


def members(retriever: Retriever, partition: int) -> range:
    """Tokens of a whole partition."""
    size = retriever.partition_size
    return range(partition * size, (partition + 1) * size)


def arkvale(
    retriever: Any, keys: Vectors, queries: Vectors, head: int, at: int
) -> dict[int, float]:
    """q.c + |q|.r, the largest of any query head: the query of token `at` of one kv head."""
    ranks = {}
    for partition in others(retriever, at + 1):
        block = [keys[head][token] for token in members(retriever, partition)]
        middle = [(min(column) + max(column)) / 2 for column in zip(*block, strict=True)]
        radius = mean_of([[abs(m - x) for m, x in zip(middle, key, strict=True)] for key in block])
        ranks[partition] = max(
            dot(query, middle) + dot([abs(x) for x in query], radius) for query in queries[head][at]
        )
    return ranks


def infllm(retriever: Any, keys: Vectors, queries: Vectors, head: int, at: int) -> dict[int, float]:
    """Sum over all heads of the products of their queries with their representative keys."""
    ranks = {}
    for partition in others(retriever, at + 1):
        total = 0.0
        for each in range(len(keys)):
            best = sorted(
                members(retriever, partition),
                key=lambda token: -attended(retriever, keys[each], queries[each], token),
            )
            for token in best[: retriever.representatives]:
                total += sum(dot(query, keys[each][token]) for query in queries[each][at])
        ranks[partition] = total / (len(keys) * len(queries[0][0]))
    return ranks


def attended(retriever: Any, keys: Vectors, queries: Vectors, token: int) -> float:
    """Mean product of a key with the queries of the local tokens behind it."""
    following = range(token + 1, token + 1 + retriever.local_tokens)
    return sum(dot(mean_of(queries[later]), keys[token]) for later in following) / len(following)


def shadowkv(
    retriever: Any, keys: Vectors, queries: Vectors, head: int, at: int
) -> dict[int, float]:
    """Largest share of attention of any query head over the landmarks; outliers come first."""
    rest = others(retriever, at + 1)
    landmark, least = {}, {}
    for partition in rest:
        chunk = [keys[head][token] for token in members(retriever, partition)]
        landmark[partition] = mean_of(chunk)
        least[partition] = min(cosine(key, landmark[partition]) for key in chunk)
    outliers = sorted(rest, key=lambda partition: least[partition])[: retriever.outlier_chunks]
    plain = [partition for partition in rest if partition not in outliers]
    shares = [
        softmax([dot(query, landmark[one]) / math.sqrt(len(query)) for one in plain])
        for query in queries[head][at]
    ]
    ranks = dict.fromkeys(outliers, ALWAYS)
    return ranks | {one: max(share[i] for share in shares) for i, one in enumerate(plain)}


def oracle_topp(
    retriever: Any, keys: Vectors, queries: Vectors, head: int, at: int
) -> dict[int, float]:
    """Exact attention of each token, mean over the query heads."""
    shares = [
        softmax([dot(query, keys[head][token]) / math.sqrt(len(query)) for token in range(at + 1)])
        for query in queries[head][at]
    ]
    return {token: sum(share[token] for share in shares) / len(shares) for token in range(at + 1)}
