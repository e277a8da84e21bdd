"""What gates over blocks of keys are made of: pools of keys, and their tensors in a file."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from sparse_algos.model_shape import ModelShape

RELEASED = re.compile(r"layers\.(\d+)\.self_attn\.attn_gate\.attngate_linear_([qk])\.weight$")
NORMS = re.compile(r"\.attn_gate\.attngate_[qk]norm\.")
PARTS = {"q": "query", "k": "key"}


def pooled(key_RPSD: Tensor, live_RPS: Tensor) -> Tensor:
    """Largest, smallest and mean of each channel over the live slots, float32 [R, P, 3 D].

    Zeros where a partition has none; dead slots may hold anything.
    """
    key_RPSD, dead_RPS1 = key_RPSD.float(), ~live_RPS.unsqueeze(-1)
    count_RP1 = live_RPS.sum(dim=2, keepdim=True)
    high_RPD = key_RPSD.masked_fill(dead_RPS1, -torch.inf).amax(dim=2)
    low_RPD = key_RPSD.masked_fill(dead_RPS1, torch.inf).amin(dim=2)
    mean_RPD = key_RPSD.masked_fill(dead_RPS1, 0).sum(dim=2) / count_RP1.clamp(min=1)
    pools_RPE = torch.cat((high_RPD, low_RPD, mean_RPD), dim=-1)
    return pools_RPE.masked_fill(count_RP1 == 0, 0)


def stacked(found: Mapping[str, Tensor], model: ModelShape) -> dict[str, Tensor]:
    """Tensors `query` and `key` of a file that names them as SeerAttention-R's release does.

    `...layers.N.self_attn.attn_gate.attngate_linear_q.weight` [K, G, D, D] and `..._k.weight` [K,
    3 D, D], for each layer N; any other file is returned as it is. Raises ValueError where gates
    are normalised, which these are not, or a layer has none.
    """
    named = {name: match for name in found if (match := RELEASED.search(name))}
    if not named:
        return dict(found)
    if any(map(NORMS.search, found)):
        raise ValueError(
            "algo.retrieve.weights: its gates normalise queries and keys (attngate_qnorm), which "
            "algo=seerattention_r does not; use gates that were trained without"
        )
    layers: dict[str, dict[int, Tensor]] = {part: {} for part in PARTS.values()}
    for name, match in named.items():
        layers[PARTS[match[2]]][int(match[1])] = found[name]
    wanted = set(range(model.num_layers))
    if missing := sorted({layer for part in layers.values() for layer in wanted - part.keys()}):
        raise ValueError(
            f"algo.retrieve.weights: layer {missing[0]} of {model.name} has no gate in the file; "
            "use a file for this model"
        )
    key_LKED = torch.stack([layers["key"][layer] for layer in range(model.num_layers)])
    query_LKGDD = torch.stack([layers["query"][layer] for layer in range(model.num_layers)])
    return {"key": key_LKED, "query": query_LKGDD.flatten(2, 3)}
