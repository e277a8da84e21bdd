"""Keys of low rank: what they are, which tokens have them, and that only values travel."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sparse_algos.retrieve.shadowkv_lowrank import ShadowKVLowRank
from tests.algorithms import plain_ranks
from tests.algorithms.inputs import shape_of
from tests.laws.configs import settings_of
from tests.laws.laws import TIGHT_BUDGET, assert_close, converse, tokens_read
from tests.laws.system import Shape, System, algorithm_with, build_system, stream_of

SHAPE = Shape(layers=2)
CONTEXT, RANK, PAGE = 121, 6, 16
SETTINGS: dict[str, Any] = {"budget_tokens": 64, "sinks": 2, "recents": 5, "group_reduce": "peak"}


def low_rank(**changes: Any) -> ShadowKVLowRank:
    plain = {"chunk_tokens": 8, "outlier_chunks": 2, "rank": RANK}
    return ShadowKVLowRank(**SETTINGS | plain | changes)


def rotated(vector: list[float], position: int, sign: int) -> list[float]:
    """Pair i turned by position / 10000 ** (2 i / D)."""
    half = len(vector) // 2
    turned = [0.0] * len(vector)
    for i in range(half):
        angle = sign * position * 1e4 ** (-2 * i / len(vector))
        x, y = vector[i], vector[i + half]
        turned[i] = x * math.cos(angle) - y * math.sin(angle)
        turned[i + half] = x * math.sin(angle) + y * math.cos(angle)
    return turned


def plain_low_rank(keys_KTD: Tensor, rank: int) -> Tensor:
    """Truncated SVD of the keys before rotation, heads side by side; rotated again. In float64."""
    heads, length, dim = keys_KTD.shape
    plain = [
        [x for head in range(heads) for x in rotated(keys_KTD[head, t].tolist(), t, -1)]
        for t in range(length)
    ]
    u, s, vh = torch.linalg.svd(torch.tensor(plain, dtype=torch.float64), full_matrices=False)
    cut_TN = u[:, :rank] * s[:rank] @ vh[:rank]
    return torch.tensor(
        [
            [rotated(cut_TN[t, k * dim : (k + 1) * dim].tolist(), t, 1) for t in range(length)]
            for k in range(heads)
        ],
        dtype=torch.float64,
    )


def keys_after(uid: str, layer: int, context: int, stored: int, retriever: Any) -> Tensor:
    """The keys that a sequence has once its context is complete, [K, T, D], float64."""
    raw_KTD = stream_of(uid, SHAPE).key[layer, :stored].transpose(0, 1).double()
    found_KTD = raw_KTD.clone()
    cut_KTD = plain_low_rank(raw_KTD[:, :context], retriever.rank)
    for head, keys in enumerate(raw_KTD.tolist()):
        for chunk in rebuilt_chunks(retriever, keys, context):
            tokens = slice(*(chunk * retriever.chunk_tokens + n for n in (0, 8)))
            found_KTD[head, tokens] = cut_KTD[head, tokens]
    return found_KTD


def rebuilt_chunks(retriever: Any, keys: list[list[float]], context: int) -> set[int]:
    """All whole chunks but those of sinks, of recents, and the outliers."""
    inside = plain_ranks.others(retriever, context)
    least = {}
    for chunk in inside:
        group = [keys[token] for token in plain_ranks.members(retriever, chunk)]
        mean = plain_ranks.mean_of(group)
        least[chunk] = min(plain_ranks.cosine(key, mean) for key in group)
    return set(sorted(inside, key=lambda chunk: least[chunk])[retriever.outlier_chunks :])


@pytest.mark.parametrize(("rank", "length"), [(1, 40), (RANK, 40), (16, 40), (16, 5), (3, 1)])
def test_rebuilt_keys_are_those_of_a_truncated_svd(rank, length):
    keys_KTD = torch.randn(2, length, 8, generator=torch.Generator().manual_seed(rank))
    retriever = low_rank(rank=rank).fitted(shape_of(head_dim=8))
    coordinates_TE, basis_KED = retriever.factorised(keys_KTD)
    assert coordinates_TE.shape == (length, rank)
    position_KT = torch.arange(length).expand(2, -1)
    rebuilt_KTD = retriever.rebuilt(coordinates_TE.expand(2, -1, -1), basis_KED, position_KT)
    assert_close(rebuilt_KTD, plain_low_rank(keys_KTD, rank), f"rank {rank}", 1e-4)


def low_rank_system(tier: str = "hbm", **more: Any) -> System:
    settings = settings_of("shadowkv_lowrank", "auto", tier, **more)
    algorithm = algorithm_with(settings, TIGHT_BUDGET)
    retriever = replace(algorithm.retrieve, rank=RANK)
    return build_system(settings, SHAPE, algorithm=replace(algorithm, retrieve=retriever))


def test_an_answer_is_attention_over_rebuilt_keys():
    system = low_rank_system()
    retriever = system.attention.algorithm.retrieve
    converse(system)
    contexts = {"long": CONTEXT, "middle": 87}
    for (uid, layer), seen_KTT in tokens_read(system).items():
        if uid not in contexts:
            continue
        stream, stored = stream_of(uid, SHAPE), system.stored[uid]
        keys_KTD = keys_after(uid, layer, contexts[uid], stored, retriever)
        at = stored - 1
        query_KGD = stream.query[layer, at].unflatten(0, (SHAPE.kv_heads, -1)).double()
        logits_KGT = torch.einsum("kgd,ktd->kgt", query_KGD, keys_KTD) * SHAPE.scale
        hidden_K1T = ~seen_KTT[:, at].unsqueeze(1)
        weights_KGT = logits_KGT.masked_fill(hidden_K1T, -torch.inf).softmax(-1)
        values_KTD = stream.value[layer, :stored].transpose(0, 1).double()
        exact_HD = (weights_KGT @ values_KTD).flatten(0, 1)
        assert_close(system.answers[uid][at][layer], exact_HD, f"{uid} at {at}", 1e-4)
        raw_KTD = stream.key[layer, :stored].transpose(0, 1)
        off_KT = (keys_KTD - raw_KTD).abs().amax(2)
        assert (off_KT * seen_KTT[:, at] > 0.1).any(), "no rebuilt key was read: the test is empty"


def test_only_values_come_up_and_keys_are_made_from_factors():
    frames = 48
    bytes_of_page = 2 * PAGE * SHAPE.head_dim * 4
    system = low_rank_system("hbm+cpu", fast_bytes=frames * bytes_of_page)
    system.context("long", CONTEXT)
    system.question("long", 3)
    for uid in ("others", "more of them"):
        system.context(uid, CONTEXT)
    memory, index = system.memory, system.attention.index
    pages_N = memory.table.pages_of_sequence(system.holds["long"])
    on_cpu_N = memory.levels[1].frames(pages_N) >= 0
    wanted_N = pages_N[on_cpu_N & (memory.frames(pages_N) < 0)][: frames // 2]
    is_rebuilt_N = index._factored.is_rebuilt(wanted_N)
    assert is_rebuilt_N.any() and not is_rebuilt_N.all()
    below_FPSD = memory.levels[1].tier.pool_FPSD
    below_FPSD[memory.levels[1].frames(wanted_N[is_rebuilt_N]), 0] = torch.nan
    before = memory.counters.current.bytes_moved["cpu->hbm"]
    frames_N = memory.fetch(wanted_N).frames_N
    moved = memory.counters.current.bytes_moved["cpu->hbm"] - before
    half = int(is_rebuilt_N.sum()) * bytes_of_page // 2
    assert moved == len(wanted_N) * bytes_of_page - half
    assert_pages_hold("long", wanted_N, memory.pool_FPSD[frames_N], system)


def assert_pages_hold(uid: str, pages_N: Tensor, found_NPSD: Tensor, system: System) -> None:
    """Pages of a sequence hold the keys that it has now, and its values."""
    table, retriever = system.memory.table, system.attention.algorithm.retrieve
    stored = system.stored[uid]
    keys = [keys_after(uid, layer, CONTEXT, stored, retriever) for layer in range(SHAPE.layers)]
    for page, found_PSD in zip(pages_N.tolist(), found_NPSD, strict=True):
        row, index = divmod(page, table.pages_per_row)
        layer, head = row // table.num_rows, row % SHAPE.kv_heads
        tokens = slice(index * PAGE, min(stored, (index + 1) * PAGE))
        count = tokens.stop - tokens.start
        assert_close(found_PSD[0, :count], keys[layer][head, tokens], f"keys of page {page}", 1e-4)
        value_SD = stream_of(uid, SHAPE).value[layer, tokens, head]
        assert torch.equal(found_PSD[1, :count], value_SD)


def test_factors_are_given_back_and_counted():
    system = low_rank_system(max_batch=2)
    peaks = []
    for uid in ("first", "second"):
        system.context(uid, CONTEXT)
        system.question(uid, 1)
        peaks.append(system.attention.index.peak_bytes)
        system.release(uid)
        # The next one takes the other slot.
        system.slots.insert(0, system.slots.pop())
    assert peaks[0] == peaks[1]
    factors = SHAPE.layers * 4 * RANK * (128 + SHAPE.kv_heads * SHAPE.head_dim)
    plain = build_system(settings_of("shadowkv", max_batch=2), SHAPE, TIGHT_BUDGET)
    plain.context("first", CONTEXT)
    plain.question("first", 1)
    more = peaks[0] - plain.attention.index.peak_bytes
    assert factors <= more <= factors + system.memory.table.num_pages + 1024


def test_a_rank_is_no_more_than_keys_can_have():
    assert low_rank(rank=500).fitted(shape_of(head_dim=8)).rank == 16


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: low_rank(rank=0), "algo.retrieve.rank=0"),
        (lambda: low_rank(outlier_chunks=9), "algo.retrieve.outlier_chunks"),
        (lambda: low_rank().fitted(replace(shape_of(), rotary=None)), "use algo=shadowkv"),
    ],
)
def test_what_low_rank_cannot_serve_is_refused(make, key):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        make()
    assert key in str(refused.value)
