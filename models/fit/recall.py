"""How good tensors are: the share of attention mass that a retriever with them reads."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.fit.base import Seen
from sparse_algos.index_data import Keys, Queries
from sparse_algos.retriever import Retriever
from sparse_algos.selection import Selection, Visible


def recall(retriever: Retriever, seen: Seen) -> float:
    """Attention mass on what the rows would read, mean over rows and query heads."""
    heads, num_tokens, _ = seen.key_KTD.shape
    rows = len(seen.rows_M)
    query_KMGD = seen.query_HTD[:, seen.rows_M].unflatten(0, (heads, -1)).transpose(1, 2)
    keys = _keys(retriever, seen)
    summaries = retriever.build(keys)
    position_KM = seen.rows_M.expand(heads, -1)
    queries = Queries(query_KMGD.flatten(1, 2), position_KM, seen.layer, keys.key_RPSD.shape[1])
    scores_KQP = retriever.score(summaries, queries)
    scores_NGP = scores_KQP.unflatten(1, (rows, -1)).flatten(0, 1)
    visible = Visible(
        (seen.rows_M + 1).repeat(heads),
        num_tokens,
        shortest=int(seen.rows_M.min()) + 1,
        num_kv_heads=heads,
        num_queries=rows,
    )
    read_NT = _tokens(retriever.select(scores_NGP, visible), retriever.partition_size, num_tokens)
    mass_KGM = (seen.attention() * read_NT.view(heads, 1, rows, -1)).sum(dim=-1)
    return float(mass_KGM.mean())


def best_recall(retriever: Retriever, seen: Seen) -> float:
    """The same if partitions were chosen by the mass that is on them."""
    size, visible_M = retriever.partition_size, seen.rows_M + 1
    mass_KGMT = seen.attention()
    mass_KMT = pad(mass_KGMT.mean(dim=1), (0, -mass_KGMT.shape[3] % size))
    mass_KMP = mass_KMT.unflatten(2, (-1, size)).sum(dim=3)
    masks = Visible(visible_M, 0).masks(mass_KMP.shape[2], size, retriever.sinks, retriever.recents)
    columns = retriever.most_tokens(int(visible_M.max())) // size
    forced_KMP = mass_KMP.masked_fill(masks.forced_RP, torch.inf)
    best_KMC = forced_KMP.topk(min(columns, mass_KMP.shape[2])).indices
    return float(mass_KMP.gather(2, best_KMC).sum(dim=2).mean())


def _keys(retriever: Retriever, seen: Seen) -> Keys:
    size, (heads, num_tokens, _) = retriever.partition_size, seen.key_KTD.shape
    missing = -num_tokens % size
    live_T = torch.arange(num_tokens + missing) < num_tokens
    return Keys(
        pad(seen.key_KTD, (0, 0, 0, missing)).unflatten(1, (-1, size)),
        live_T.expand(heads, -1).unflatten(1, (-1, size)),
        torch.zeros(heads, dtype=torch.int64),
        seen.layer,
    )


def _tokens(selection: Selection, size: int, num_tokens: int) -> Tensor:
    """Tokens of the partitions that each row reads, bool [N, T]."""
    partitions_NC = selection.partitions_RC
    read_NP = torch.zeros(len(partitions_NC), -(-num_tokens // size) + 1, dtype=torch.bool)
    read_NP.scatter_(1, partitions_NC, True)
    if selection.valid_RC is not None:
        read_NP[:, -1] = False
    return read_NP[:, :-1].repeat_interleave(size, dim=1)[:, :num_tokens]
