"""Evictors as their papers say them: plain loops over tokens, heads and layers, in float64."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.laws.system import Shape, stream_of

Scores = list[dict[int, float]]
Kept = list[list[int]]


@dataclass
class PlainSequence:
    """What one sequence keeps on one layer, token by token.

    kept: by kv head, the tokens that are left; seen: by kv head and query, what it attended to.
    """

    evict: Any
    shape: Shape
    uid: str
    layer: int
    served: int
    stored: int = 0
    kept: Kept = field(default_factory=list)
    scores: Scores = field(default_factory=list)
    seen: dict[tuple[int, int], set[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kept = [[] for _ in range(self.shape.kv_heads)]
        self.scores = [{} for _ in range(self.shape.kv_heads)]
        stream = stream_of(self.uid, self.shape)
        self.key = stream.key[self.layer].double().tolist()
        query_THD, key_TKD = stream.query[self.layer].double(), stream.key[self.layer].double()
        key_THD = key_TKD.repeat_interleave(self.shape.group, dim=1)
        logits_HTT = torch.einsum("thd,shd->hts", query_THD, key_THD) * self.shape.scale
        self.logits = logits_HTT.tolist()

    def context(self, count: int) -> None:
        """Every query sees every token before it; then the context is cut."""
        self._append(count)
        PLAIN[type(self.evict).__name__](self, self.budget(self.stored), 0)

    def step(self, count: int) -> None:
        """Room is made, tokens are appended, and they see what is left."""
        if self.evict.decodes:
            PLAIN[type(self.evict).__name__](self, self.budget(self.stored + count) - count, count)
        self._append(count)

    def budget(self, context: int) -> int:
        if isinstance(self.evict.budget_tokens, int):
            return self.evict.budget_tokens
        return math.ceil(self.evict.budget_tokens * context)

    def received(self, head: int, token: int, queries: list[int]) -> float:
        """Attention from these queries, the mean over the query heads of a kv head."""
        group, total = self.shape.group, 0.0
        for query in queries:
            for one in range(group):
                total += self.weights[head * group + one, query].get(token, 0.0)
        return total / group

    def _append(self, count: int) -> None:
        new = range(self.stored, self.stored + count)
        self.stored += count
        self.weights = {}
        for head in range(self.shape.kv_heads):
            self.kept[head] += new
            for query in new:
                sees = [token for token in self.kept[head] if token <= query]
                self.seen[head, query] = set(sees)
                for one in range(self.shape.group):
                    self._attend(head * self.shape.group + one, head, query, sees)
        for head in range(self.shape.kv_heads):
            for token in self.kept[head]:
                mass = self.received(head, token, list(new))
                self.scores[head][token] = self.scores[head].get(token, 0.0) + mass

    def _attend(self, query_head: int, head: int, query: int, sees: list[int]) -> None:
        logits = [self.logits[query_head][query][token] for token in sees]
        top = max(logits)
        total = sum(math.exp(logit - top) for logit in logits)
        self.weights[query_head, query] = {
            token: math.exp(logit - top) / total for token, logit in zip(sees, logits, strict=True)
        }


def highest(scores: dict[int, float], count: int) -> list[int]:
    """The tokens of the highest scores; of equal ones the older."""
    order = sorted(scores, key=lambda token: (-scores[token], token))
    return sorted(order[: max(0, count)])


def streaming(one: PlainSequence, room: int, coming: int) -> None:
    for head, tokens in enumerate(one.kept):
        if len(tokens) > room:
            sinks = one.evict.sinks
            one.kept[head] = tokens[:sinks] + tokens[len(tokens) - (room - sinks) :]


def with_ends(one: PlainSequence, room: int, recents: int, score: Any) -> None:
    """Sinks and recents stay; the rest of the room is for the best of what is between."""
    for head, tokens in enumerate(one.kept):
        if len(tokens) > room:
            recents = max(0, recents)
            first, last = tokens[: one.evict.sinks], tokens[len(tokens) - recents :]
            between = tokens[one.evict.sinks : len(tokens) - recents]
            chosen = highest(
                {token: score(head, token) for token in between}, room - recents - len(first)
            )
            one.kept[head] = first + chosen + last


def h2o(one: PlainSequence, room: int, coming: int) -> None:
    recents = int((room + coming) * one.evict.recent_share) - coming
    with_ends(one, room, recents, lambda head, token: one.scores[head][token])


def tova(one: PlainSequence, room: int, coming: int) -> None:
    last = [one.stored - 1]

    def mean_over_heads(_: int, token: int) -> float:
        heads = range(one.shape.kv_heads)
        return sum(one.received(head, token, last) for head in heads) / len(heads)

    with_ends(one, room, one.evict.recent_tokens - coming, mean_over_heads)


def knorm(one: PlainSequence, room: int, coming: int) -> None:
    def low_norm(head: int, token: int) -> float:
        return -math.sqrt(sum(x**2 for x in one.key[token][head]))

    with_ends(one, room, one.evict.recent_tokens - coming, low_norm)


def observed(one: PlainSequence) -> Scores:
    """SnapKV's scores of what is before the window: attention from it, averaged over neighbours."""
    window, size = one.evict.window_tokens, one.evict.kernel_tokens
    queries = list(range(max(0, one.stored - window), one.stored))
    past = one.stored - window
    scores: Scores = []
    for head in range(one.shape.kv_heads):
        raw = [one.received(head, token, queries) for token in range(past)]
        near = [
            [
                raw[other]
                for other in range(token - size // 2, token + size // 2 + 1)
                if 0 <= other < past
            ]
            for token in range(past)
        ]
        scores.append({token: sum(near[token]) / size for token in range(past)})
    return scores


def snapkv(one: PlainSequence, room: int, coming: int) -> None:
    if one.stored <= room:
        return
    scores, window = observed(one), one.evict.window_tokens
    for head in range(one.shape.kv_heads):
        last = list(range(one.stored - window, one.stored))
        one.kept[head] = highest(scores[head], room - window) + last


def pyramidkv(one: PlainSequence, room: int, coming: int) -> None:
    window = one.evict.window_tokens
    chosen, past = room - window, one.stored - window
    if past <= chosen:
        return
    least = chosen // one.evict.beta
    most = chosen * 2 - least
    if most >= past:
        most = past
        least = chosen * 2 - most
    step = (most - least) // (one.served - 1)
    snapkv(one, most - one.layer * step + window, coming)


def adakv(one: PlainSequence, room: int, coming: int) -> None:
    if one.stored <= room:
        return
    scores, window = observed(one), one.evict.window_tokens
    heads = range(one.shape.kv_heads)
    chosen = room - window
    safe = [highest(scores[head], int(chosen * one.evict.floor_share)) for head in heads]
    rest = [
        (-score, head, token)
        for head in heads
        for token, score in scores[head].items()
        if token not in safe[head]
    ]
    rest = sorted(rest)[: chosen * len(heads) - sum(len(each) for each in safe)]
    for head in heads:
        more = [token for _, owner, token in rest if owner == head]
        last = list(range(one.stored - window, one.stored))
        one.kept[head] = sorted(safe[head] + more) + last


PLAIN = {
    "Streaming": streaming,
    "H2O": h2o,
    "Tova": tova,
    "Knorm": knorm,
    "SnapKV": snapkv,
    "PyramidKV": pyramidkv,
    "AdaKV": adakv,
}
