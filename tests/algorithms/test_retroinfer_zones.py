"""RetroInfer's three zones together, against a plain loop over tokens and clusters."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from backends.attention.base import Attended, merge
from sparse_algos.retrieve.retroinfer import RetroInfer
from sparse_algos.retriever import Read
from sparse_algos.selection import Clusters, Visible
from tests.algorithms.inputs import queries_of
from tests.algorithms.test_retroinfer import (
    DIM,
    SEEDS,
    examples,
    plain_choice,
    random,
    retroinfer,
    taken_of,
)


def plain_answer(
    retriever: RetroInfer,
    query_GD: Tensor,
    tokens: tuple[Tensor, Tensor],
    labels: list[int],
    scale: float,
) -> Tensor:
    """The paper's three zones for one row, a token and a cluster at a time, in float64."""
    keys, values = (one.double() for one in tokens)
    first, last = retriever.sinks, retriever.sinks + len(labels)
    count = max(labels) + 1
    members = [[first + n for n, one in enumerate(labels) if one == p] for p in range(count)]
    means = [keys[one].mean(0) if one else torch.zeros(DIM).double() for one in members]
    scores_GP = torch.stack([query_GD.double() @ mean for mean in means], 1) / math.sqrt(DIM)
    sizes = [len(one) for one in members]
    chosen, steady = plain_choice(retriever, scores_GP, sizes, last, len(keys))
    mass_P = scores_GP.masked_fill(torch.tensor(sizes) == 0, -torch.inf).softmax(1).sum(0)
    others = [p for p in mass_P.argsort(descending=True).tolist() if p not in chosen and sizes[p]]
    num_there = sum(size > 0 for size in sizes)
    estimated = others[: math.ceil(num_there * retriever.estimated_share)]
    read = steady.union(*(members[p] for p in chosen))
    out = []
    for query_D in query_GD.double():
        above, below = torch.zeros(DIM).double(), 0.0
        for token in read:
            weight = math.exp(scale * float(query_D @ keys[token]))
            above, below = above + weight * values[token], below + weight
        for p in estimated:
            weight = math.exp(scale * float(query_D @ means[p]))
            above, below = above + weight * values[members[p]].sum(0), below + weight * sizes[p]
        out.append(above / below)
    return torch.stack(out)


@examples
@given(
    seed=SEEDS,
    length=st.integers(20, 60),
    budget=st.sampled_from([14, 20, 40]),
    share=st.sampled_from([0.1, 0.25, 1.0]),
    scale=st.sampled_from([DIM**-0.5, 0.2]),
)
def test_an_answer_has_the_three_zones_of_the_paper(seed, length, budget, share, scale):
    retriever = retroinfer(budget_tokens=budget, estimated_share=share)
    keys_TD, values_TD, query_GD = (random(seed + n, length, DIM) for n in range(3))
    query_GD = query_GD[:2]
    middle = slice(retriever.sinks, length - retriever.recents)
    labels_1T = retriever.cluster(keys_TD[None, middle])
    built = retriever.summarise(
        keys_TD[None, middle], values_TD[None, middle], labels_1T, int(labels_1T.max()) + 1
    )
    scores_1GP = retriever.score(built, queries_of(query_GD[None], built["size"].shape[1]))
    clusters = Clusters(built["size"][:, :, 0].long(), torch.tensor([middle.stop]))
    visible = Visible(torch.tensor([length]), length, clusters=clusters)
    selection = retriever.select(scores_1GP, visible)
    ((chosen, steady),) = taken_of(selection, [length])
    members = [middle.start + t for t, p in enumerate(labels_1T[0].tolist()) if p in chosen]
    exact = sorted({*steady, *members})
    logits_GN = query_GD @ keys_TD[exact].T * scale
    at = selection.estimated_RC[0].clamp(min=0)
    rest = retriever.estimate(
        Read(
            query_GD[None],
            scores_1GP,
            logits_GN.logsumexp(1)[None],
            selection,
            {name: one[:, at] for name, one in built.items()},
            None,
            scale,
        )
    )
    read = Attended((logits_GN.softmax(1) @ values_TD[exact])[None], logits_GN.logsumexp(1)[None])
    found_GD = merge(read, Attended(rest.out_RGD, rest.lse_RG)).out[0]
    tokens = (keys_TD, values_TD)
    expected_GD = plain_answer(retriever, query_GD, tokens, labels_1T[0].tolist(), scale)
    torch.testing.assert_close(found_GD.double(), expected_GD, atol=1e-5, rtol=1e-4)
