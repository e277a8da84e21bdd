"""A paged attention system without a model, driven with random queries, keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from backends.batch import Batch
from backends.paged_attention import PagedAttention
from backends.transformers.loading import ModelInfo
from harness.build import build_algorithm
from harness.preflight import plan_for
from harness.settings import Settings
from harness.system import assemble
from sparse_algos.base import Algorithm
from sparse_algos.model_shape import Rotary
from tests.laws.configs import fitted
from tests.laws.watcher import Read, Watcher, watch_fetches

MAX_TOKENS = 192
DENSE = Algorithm(name="dense", evict=None, retrieve=None)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the model that is not there; `group` is query heads per kv head."""

    layers: int = 3
    kv_heads: int = 2
    group: int = 2
    head_dim: int = 16
    windowed: frozenset[int] = frozenset()
    window: int | None = None

    @property
    def scale(self) -> float:
        return self.head_dim**-0.5

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            name="random",
            config=None,
            num_layers=self.layers,
            num_heads=self.kv_heads * self.group,
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            max_tokens=MAX_TOKENS,
            windowed_layers=self.windowed,
            window=self.window,
            dtype=torch.float32,
            rotary=Rotary(1e4 ** -(torch.arange(0, self.head_dim, 2).float() / self.head_dim)),
        )


@dataclass(frozen=True)
class Stream:
    """What a sequence brings: query_LTHD, key_LTKD, value_LTKD."""

    query: Tensor
    key: Tensor
    value: Tensor


@lru_cache
def stream_of(uid: str, shape: Shape) -> Stream:
    """Random tensors that depend on the name of the sequence alone."""
    generator = torch.Generator().manual_seed(sum(map(ord, uid)))
    heads = (shape.kv_heads * shape.group, shape.kv_heads, shape.kv_heads)
    sizes = [(shape.layers, MAX_TOKENS, count, shape.head_dim) for count in heads]
    return Stream(*(torch.randn(size, generator=generator) for size in sizes))


class NoModel:
    """Stands where an engine expects a model; it is never called."""

    def __init__(self, num_layers: int) -> None:
        self.config = type("Config", (), {"num_hidden_layers": num_layers})

    def set_attn_implementation(self, name: str) -> None: ...


@dataclass
class System:
    """Paged attention, the sequences in it, and all that they brought, read and answered.

    contexts: tokens of the context of each; answers: by sequence and position, [L, H, D];
    past_pages and past_halves: pages before a chunk that it read whole, and those of which it read
    the keys or the values alone.
    """

    attention: PagedAttention
    watcher: Watcher
    shape: Shape
    chunk: int
    slots: list[int]
    last_chunk: int
    holds: dict[str, int] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    contexts: dict[str, int] = field(default_factory=dict)
    answers: dict[str, dict[int, Tensor]] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    past_pages: int = 0
    past_halves: int = 0

    @property
    def memory(self) -> Any:
        return self.attention.memory

    def context(self, uid: str, count: int, *, ends: bool = True) -> None:
        """Prefill densely, in chunks as the scheduler cuts them; ends: no context follows."""
        while count > 0:
            new = count if count <= self.chunk else min(self.chunk, count - self.last_chunk)
            count -= new
            self._append([uid], new, dense=True, ends_context=ends and count == 0)
        self.contexts[uid] = self.stored[uid]

    def question(self, uid: str, count: int) -> None:
        """Prefill through the algorithm, in chunks no longer than it takes."""
        evict = self.attention.algorithm.evict
        while count > 0:
            most = evict and evict.most_rows(self.stored[uid])
            new = min(self.chunk, count, most or count)
            count -= new
            self._append([uid], new, dense=False)

    def decode(self, *uids: str) -> None:
        """One token for each."""
        self._append(uids, 1, dense=False, is_decode=True)

    def release(self, uid: str) -> None:
        self.attention.release(self.holds[uid])
        self.slots.append(self.holds.pop(uid))

    def _append(
        self,
        uids: Sequence[str],
        new: int,
        *,
        dense: bool,
        is_decode: bool = False,
        ends_context: bool = False,
    ) -> None:
        for uid in uids:
            if uid not in self.holds:
                self.holds[uid], self.stored[uid] = self.slots.pop(), 0
        stored = [self.stored[uid] for uid in uids]
        slots = tuple(self.holds[uid] for uid in uids)
        batch = Batch(self.memory.table, slots, tuple(stored), new, ends_context)
        layers = [
            self._layer(
                layer, batch, uids, dense or not (is_decode or self.attention.acts_on(layer))
            )
            for layer in range(self.shape.layers)
        ]
        for uid, out_LMHD in zip(uids, torch.stack(layers, 1), strict=True):
            start = self.stored[uid]
            answers = self.answers.setdefault(uid, {})
            answers.update({start + m: out_LMHD[:, m] for m in range(new)})
            self.stored[uid] += new

    def _layer(self, layer: int, batch: Batch, uids: Sequence[str], dense: bool) -> Tensor:
        parts = [self._brought(uid, layer, batch.new) for uid in uids]
        query, key, value = (torch.stack(one) for one in zip(*parts, strict=True))
        self.watcher.decoded.clear()
        self.watcher.prefilled.clear()
        self.watcher.fetched.clear()
        scale = self.shape.scale
        if dense:
            out = self.attention.dense(layer, batch, query[0], key[0], value[0], scale)
            self._note_past(layer)
            return out.unsqueeze(0)
        out = self.attention.sparse(layer, batch, query, key, value, scale)
        self.reads.append(self._read(layer, batch, uids))
        return out

    def _note_past(self, layer: int) -> None:
        size, pattern = self.memory.geometry.page_tokens, self.attention.algorithm.prefill
        if pattern is None or layer in self.attention.rules.dense_layers:
            past = sum(-(-tokens // size) for tokens in self.watcher.prefilled[1:])
            self.past_pages += past * self.shape.kv_heads
        elif pattern.reads_keys:
            self.past_halves += sum(self.watcher.fetched)
        else:
            self.past_pages += sum(self.watcher.fetched)

    def _brought(self, uid: str, layer: int, new: int) -> list[Tensor]:
        stream, start = stream_of(uid, self.shape), self.stored[uid]
        return [one[layer, start : start + new] for one in (stream.query, stream.key, stream.value)]

    def _read(self, layer: int, batch: Batch, uids: Sequence[str]) -> Read:
        table, size = self.memory.table, self.memory.geometry.page_tokens
        num_rows = len(batch.rows_R) * batch.new
        times_RT = torch.zeros(num_rows, MAX_TOKENS, dtype=torch.int64)
        own_R = (batch.rows_R + layer * table.num_rows).repeat_interleave(batch.new)
        strays = num_pages = 0
        values = [stream_of(uid, self.shape).value[layer].transpose(0, 1) for uid in uids]
        values_RTD = torch.cat(values)
        for selection, page_N, values_NSD in self.watcher.decoded:
            row_N = torch.arange(num_rows).repeat_interleave(selection.indptr_R1.diff())
            bit_NS = selection.live_N.unsqueeze(1) >> torch.arange(size) & 1
            token_NS = tokens_of(values_NSD, values_RTD[row_N // batch.new])
            strays += int((bit_NS.bool() & (token_NS < 0)).sum())
            at = (row_N.unsqueeze(1), token_NS.clamp(min=0))
            times_RT.index_put_(at, bit_NS * (token_NS >= 0), accumulate=True)
            strays += int((page_N // table.pages_per_row != own_R[row_N]).sum())
            strays += len(row_N) - len(torch.stack((row_N, page_N)).unique(dim=1)[0])
            num_pages += len(page_N)
        seen_R = (batch.positions_RM + 1).flatten()
        return Read(layer, tuple(uids), times_RT, seen_R, strays, num_pages)


def tokens_of(values_NSD: Tensor, known_NTD: Tensor) -> Tensor:
    """The token whose value a slot holds, int64 [N, S], -1 for none; layouts may move it."""
    sorted_NT, order_NT = known_NTD[..., 0].contiguous().sort(dim=1)
    at_NS = torch.searchsorted(sorted_NT, values_NSD[..., 0].contiguous()).clamp(max=MAX_TOKENS - 1)
    token_NS = order_NT.gather(1, at_NS)
    index_NSD = token_NS.unsqueeze(2).expand_as(values_NSD)
    same_NS = (known_NTD.gather(1, index_NSD) == values_NSD).all(dim=2)
    return token_NS.masked_fill(~same_NS, -1)


def algorithm_with(settings: Settings, budget_tokens: int | float | None) -> Algorithm:
    """The configured algorithm with another budget; if it holds all, patterns skip nothing."""
    algorithm = build_algorithm(settings)
    if budget_tokens is None:
        return algorithm
    roles = {
        name: role and replace(role, budget_tokens=budget_tokens)
        for name, role in (("evict", algorithm.evict), ("retrieve", algorithm.retrieve))
    }
    if algorithm.prefill is not None and budget_tokens >= MAX_TOKENS:
        roles["prefill"] = algorithm.prefill.keeping_all()
    return replace(algorithm, **roles)


def fitted_to(algorithm: Algorithm, info: ModelInfo) -> Algorithm:
    """The algorithm for this model, with random tensors where it wants trained ones."""
    if algorithm.retrieve is None:
        return algorithm
    return replace(algorithm, retrieve=fitted(algorithm.retrieve, info.shape))


def build_system(
    settings: Settings,
    shape: Shape,
    budget_tokens: int | float | None = None,
    algorithm: Algorithm | None = None,
) -> System:
    """The system that the harness would assemble, with a watched kernel and no model."""
    algorithm = algorithm or algorithm_with(settings, budget_tokens)
    algorithm = fitted_to(algorithm, shape.info)
    plan = plan_for(settings, algorithm, shape.info, MAX_TOKENS, torch.device("cpu"))
    watcher = Watcher()
    engine = assemble(settings, algorithm, plan, shape.info, NoModel(shape.layers), watcher)
    attention = engine.attention
    watcher.memory = attention.memory
    watch_fetches(watcher, attention.memory)
    slots = list(range(plan.sequences))[::-1]
    chunk = settings.backend.chunk_tokens
    return System(attention, watcher, shape, chunk, slots, plan.last_chunk)
