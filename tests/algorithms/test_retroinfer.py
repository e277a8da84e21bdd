"""RetroInfer's clusters and what it selects of them, against plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sparse_algos.nearest as module
from sparse_algos.retrieve.retroinfer import RetroInfer
from sparse_algos.selection import Clusters, Selection, Visible
from tests.algorithms.inputs import queries_of

DIM = 8
examples = settings(max_examples=40)
SEEDS = st.integers(0, 10_000)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])


def retroinfer(**changes) -> RetroInfer:
    plain = {
        "budget_tokens": 40,
        "sinks": 2,
        "recents": 4,
        "group_reduce": "mass",
        "cluster_tokens": 4,
        "rebuild_every": 8,
        "segment_tokens": 40,
        "iterations": 10,
        "estimated_share": 0.25,
    }
    return RetroInfer(**plain | changes)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_labels(retriever: RetroInfer, keys_TD: Tensor) -> list[int]:
    """The paper's k-means in float64, one key after the other."""
    keys = (keys_TD.double() - keys_TD.double().mean(0)).tolist()
    segments = max(1, round(len(keys) / retriever.segment_tokens))
    length = -(-len(keys) // segments)
    centroids = []
    for start in range(0, len(keys), length):
        segment = keys[start : start + length]
        count = retriever.num_clusters(len(keys)) // segments
        found = [segment[number * len(segment) // count] for number in range(count)]
        for _ in range(retriever.iterations - 1):
            labels = [nearest(key, found) for key in segment]
            found = [direction(segment, labels, number, one) for number, one in enumerate(found)]
        centroids += found
    return [nearest(key, centroids) for key in keys]


def nearest(key: list[float], centroids: list[list[float]]) -> int:
    products = [sum(a * b for a, b in zip(key, one, strict=True)) for one in centroids]
    return products.index(max(products))


def direction(
    keys: list[list[float]], labels: list[int], number: int, before: list[float]
) -> list[float]:
    members = [key for key, label in zip(keys, labels, strict=True) if label == number]
    if not members:
        return before
    total = [sum(channel) for channel in zip(*members, strict=True)]
    norm = math.sqrt(sum(x * x for x in total))
    return [x / norm for x in total]


@examples
@given(seed=SEEDS, length=st.integers(8, 130), iterations=st.integers(1, 4))
def test_clusters_are_those_of_the_paper(seed, length, iterations):
    retriever = retroinfer(iterations=iterations)
    keys_RTD = random(seed, 2, length, DIM) + 3 * random(seed + 1, 2, 1, DIM)
    labels_RT = retriever.cluster(keys_RTD)
    assert labels_RT.tolist() == [plain_labels(retriever, keys_TD) for keys_TD in keys_RTD]


@examples
@given(seed=SEEDS, length=st.integers(8, 130))
def test_clustering_in_blocks_of_tokens_changes_nothing(seed, length):
    keys_RTD = random(seed, 2, length, DIM)
    whole_RT = retroinfer().cluster(keys_RTD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_ELEMENTS", 64)
        assert torch.equal(retroinfer().cluster(keys_RTD), whole_RT)


@examples
@given(
    seed=SEEDS,
    dtype=DTYPES,
    tokens=st.integers(1, 70),
    count=st.sampled_from([1, 2, 31, 32, 33, 64, 100, 1025]),
    block=st.sampled_from([64, 5000, 1 << 21]),
)
def test_the_nearest_direction_is_nearest_within_rounding(seed, dtype, tokens, count, block):
    keys_NTD, centroids_NPD = random(seed, 2, tokens, DIM), random(seed + 1, 2, count, DIM)
    # No product of the first row is above 0: what fills a group must not win.
    keys_NTD[0], centroids_NPD[0] = -keys_NTD[0].abs(), centroids_NPD[0].abs()
    keys_NTD, centroids_NPD = keys_NTD.to(dtype), centroids_NPD.to(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CPU_ELEMENTS", block)
        labels_NT = module.nearest(keys_NTD, centroids_NPD)
    products_NTP = keys_NTD.double() @ centroids_NPD.double().mT
    found_NT = products_NTP.gather(2, labels_NT.unsqueeze(2)).squeeze(2)
    best_NT = products_NTP.amax(2)
    slack_NT = (1 if dtype == torch.bfloat16 else 2**-15) * 2**-7 * best_NT.abs() + 1e-6
    assert bool((found_NT >= best_NT - slack_NT).all())


def test_clusters_of_keys_that_lie_apart_are_the_same_in_half_precision():
    kinds_PD = torch.cat((torch.eye(DIM), -torch.eye(DIM))) * 4
    place_T = torch.arange(192)
    # The keys that k-means begins with, every twelfth, are of different kinds.
    kind_T = (place_T // 12 + 5 * (place_T % 12)) % len(kinds_PD)
    keys_RTD = (kinds_PD[kind_T] + 0.3 * random(1, 192, DIM)).unsqueeze(0)
    retriever = retroinfer(cluster_tokens=12, segment_tokens=8192)
    assert torch.equal(retriever.cluster(keys_RTD)[0], kind_T)
    assert torch.equal(retriever.cluster(keys_RTD.bfloat16())[0], kind_T)


def test_clusters_hold_keys_more_alike_than_blocks_do():
    kinds_TD = 4 * random(0, 16, DIM).repeat(12, 1)[torch.randperm(192)]
    keys_RTD = (kinds_TD + random(1, 192, DIM)).unsqueeze(0)
    retriever = retroinfer(cluster_tokens=12, segment_tokens=8192)

    def spread(labels_RT: Tensor) -> float:
        means_PD = retriever.summarise(keys_RTD, keys_RTD, labels_RT, 16)["centroid"][0]
        return float((keys_RTD[0] - means_PD[labels_RT[0]]).square().sum())

    blocks = spread(torch.arange(192).unsqueeze(0) // 12)
    assert spread(retriever.cluster(keys_RTD)) < 0.5 * blocks


@examples
@given(
    seed=SEEDS, length=st.integers(1, 40), dtype=st.sampled_from([torch.float32, torch.bfloat16])
)
def test_a_summary_is_the_mean_key(seed, length, dtype):
    keys_RTD = random(seed, 2, length, DIM).to(dtype)
    labels_RT = torch.randint(0, 5, (2, length), generator=torch.Generator().manual_seed(seed))
    centroid_RPD = retroinfer().summarise(keys_RTD, keys_RTD, labels_RT, 6)["centroid"]
    assert centroid_RPD.dtype == dtype
    for row in range(2):
        for label in range(6):
            members = keys_RTD[row, labels_RT[row] == label].double()
            mean_D = members.mean(0) if len(members) else torch.zeros(DIM).double()
            torch.testing.assert_close(
                centroid_RPD[row, label].double(), mean_D, atol=2e-2, rtol=2e-2
            )


def test_a_score_is_the_logit_of_the_centroid():
    centroid_RPD, query_RQD = random(0, 2, 5, DIM), random(1, 2, 3, DIM)
    scores_RQP = retroinfer().score(
        {"centroid": centroid_RPD}, queries_of(query_RQD, centroid_RPD.shape[1])
    )
    expected_RQP = torch.einsum("rqd,rpd->rqp", query_RQD, centroid_RPD) / math.sqrt(DIM)
    torch.testing.assert_close(scores_RQP, expected_RQP)


def plain_choice(
    retriever: RetroInfer, scores_GP: Tensor, sizes: list[int], covered: int, num_tokens: int
) -> tuple[list[int], set[int]]:
    """Clusters in ascending order, and tokens that are read beside them."""
    budget = retriever.most_tokens(num_tokens)
    steady = set(range(min(retriever.sinks, num_tokens)))
    newest = num_tokens
    while newest > max(covered, retriever.sinks) and len(steady) < budget:
        newest -= 1
        steady.add(newest)
    there = [p for p, size in enumerate(sizes) if size]
    rows = scores_GP.double().tolist()
    totals = [sum(math.exp(row[p]) for p in there) for row in rows]
    mass = {
        p: sum(math.exp(row[p]) / total for row, total in zip(rows, totals, strict=True))
        for p in there
    }
    chosen, room = [], budget - len(steady)
    for p in sorted(there, key=lambda p: -mass[p]):
        if sizes[p] > room:
            break
        chosen.append(p)
        room -= sizes[p]
    return sorted(chosen), steady


@examples
@given(
    seed=SEEDS,
    shapes=st.lists(
        st.tuples(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 40)),
        min_size=1,
        max_size=4,
    ),
    budget=st.sampled_from([14, 24, 60, 0.3, 0.75]),
)
def test_a_selection_is_the_plain_loop(seed, shapes, budget):
    retriever = retroinfer(budget_tokens=budget)
    partitions = max(len(sizes) for sizes, _ in shapes)
    all_sizes = [sizes + [0] * (partitions - len(sizes)) for sizes, _ in shapes]
    covered = [retriever.sinks + sum(sizes) if any(sizes) else 0 for sizes in all_sizes]
    lengths = [before + tail for before, (_, tail) in zip(covered, shapes, strict=True)]
    scores_RGP = random(seed, len(shapes), 2, partitions)
    sizes_RP = torch.tensor(all_sizes, dtype=torch.int64).view(len(shapes), partitions)
    visible = Visible(
        torch.tensor(lengths), max(lengths), clusters=Clusters(sizes_RP, torch.tensor(covered))
    )
    selection = retriever.select(scores_RGP, visible)
    for row, taken in enumerate(taken_of(selection, lengths)):
        expected = plain_choice(
            retriever, scores_RGP[row], all_sizes[row], covered[row], lengths[row]
        )
        assert taken == expected
        tokens = len(taken[1]) + sum(all_sizes[row][p] for p in taken[0])
        assert tokens <= retriever.most_tokens(lengths[row])


@pytest.mark.parametrize("budget", [20, 33, 39, 200])
def test_clusters_smaller_than_planned_still_fill_the_budget(budget):
    retriever = retroinfer(budget_tokens=budget)
    sizes_RP, covered_R = torch.ones(2, 100, dtype=torch.int64), torch.tensor([102, 102])
    sizes_RP[1, 60:] = 0
    visible = Visible(torch.tensor([106, 106]), 106, clusters=Clusters(sizes_RP, covered_R))
    selection = retriever.select(random(0, 2, 3, 100), visible)
    expected = [min(budget - 6, 100), min(budget - 6, 60)]
    assert selection.valid_RC.sum(1).tolist() == expected


def taken_of(selection: Selection, lengths: list[int]) -> list[tuple[list[int], set[int]]]:
    """Clusters and other tokens that each row reads."""
    taken = []
    for row, length in enumerate(lengths):
        clusters = selection.partitions_RC[row][selection.valid_RC[row]].tolist()
        sinks, tail = int(selection.steady.sinks_R[row]), int(selection.steady.tail_R[row])
        assert sinks <= tail <= length
        taken.append((clusters, {*range(sinks), *range(tail, length)}))
    return taken


@examples
@given(
    context=st.integers(0, 300),
    chunks=st.lists(st.integers(1, 40), max_size=30),
    rebuild_every=st.integers(1, 20),
    cluster_tokens=st.integers(1, 20),
)
def test_every_token_but_sinks_and_newest_is_clustered_once(
    context, chunks, rebuild_every, cluster_tokens
):
    retriever = retroinfer(
        rebuild_every=rebuild_every, cluster_tokens=cluster_tokens, budget_tokens=500
    )
    stored, covered, partitions = context, 0, 0
    for chunk in chunks:
        due = retriever.due(stored, covered)
        if due is not None:
            assert due.start == max(covered, retriever.sinks)
            covered, partitions = due.stop, partitions + retriever.num_clusters(len(due))
        assert partitions <= retriever.most_partitions(stored)
        assert stored - max(covered, retriever.sinks) < retriever.recents + rebuild_every
        stored += chunk
    assert covered <= max(0, stored - retriever.recents)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget_tokens": 13}, "take up to 14 tokens"),
        ({"cluster_tokens": 0}, "algo.retrieve.cluster_tokens=0"),
        ({"rebuild_every": 0}, "algo.retrieve.rebuild_every=0"),
        ({"estimated_share": 1.5}, "algo.retrieve.estimated_share=1.5"),
        ({"iterations": 0}, "algo.retrieve.iterations=0"),
        ({"segment_tokens": 7}, "raise it to 8"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        retroinfer(**changes)
