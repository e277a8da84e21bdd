"""Queries, keys and values with the structure that prefill patterns look for; all synthetic.

Random vectors have none of it: every block would matter alike. Here heads mix, each in shares of
its own, what papers report of trained models: a band near the diagonal and a slash at a distance
(rotations by position), a few keys that everybody looks at, and topics that come back.
"""

from typing import NamedTuple

import torch
from torch import Tensor

NUM_TOPICS = 24
TOPIC_TOKENS = 192
HEAVY_EVERY = 400


class Prompt(NamedTuple):
    """query_KGTD [K, G, T, D], key_KTD and value_KTD [K, T, D], one dtype."""

    query_KGTD: Tensor
    key_KTD: Tensor
    value_KTD: Tensor


def make_prompt(
    num_tokens: int, num_kv_heads: int, group: int, head_dim: int, dtype: torch.dtype
) -> Prompt:
    """A prompt of one layer; the same for the same sizes."""
    generator = torch.Generator().manual_seed(0)
    half = head_dim // 2
    # A quarter of the dimensions for rotations, one for heavy hitters, the others for topics.
    turning, heavy, topical = head_dim // 4, head_dim // 4, head_dim - half
    topic_T, recalled_T = _topics(num_tokens, generator)
    queries, keys = [], []
    for _ in range(num_kv_heads):
        topics_ND = torch.nn.functional.normalize(
            torch.randn(NUM_TOPICS, topical, generator=generator), dim=1
        )
        key_TD = torch.cat(
            (
                _turned(torch.arange(num_tokens), turning),
                _heavy(num_tokens, heavy, generator),
                topics_ND[topic_T],
            ),
            dim=1,
        )
        keys.append(key_TD)
        for _ in range(group):
            near, far, hit, own, recall = (torch.rand(5, generator=generator) + 0.5).tolist()
            distance = int(torch.randint(num_tokens // 8, (1,), generator=generator)) + 256
            turns_TD = near * _turned(torch.arange(num_tokens), turning) + 0.7 * far * _turned(
                torch.arange(num_tokens) - distance, turning
            )
            hits_TD = torch.zeros(num_tokens, heavy)
            hits_TD[:, 0] = hit
            themes_TD = own * topics_ND[topic_T] + recall * topics_ND[recalled_T]
            queries.append(torch.cat((turns_TD, hits_TD, themes_TD), dim=1))
    query_HTD, key_KTD = torch.stack(queries) * 7 * head_dim**0.5, torch.stack(keys)
    noise = [torch.randn(one.shape, generator=generator) for one in (query_HTD, key_KTD)]
    query_HTD += noise[0] * 0.5
    key_KTD += noise[1] * 0.04
    value_KTD = torch.randn(key_KTD.shape, generator=generator)
    query_KGTD = query_HTD.unflatten(0, (num_kv_heads, group))
    return Prompt(query_KGTD.to(dtype), key_KTD.to(dtype), value_KTD.to(dtype))


def _topics(num_tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The topic of each token, and the one it recalls: runs of tokens, int64 [T] both."""
    num_runs = -(-num_tokens // TOPIC_TOKENS)
    topics = torch.randint(NUM_TOPICS, (2, num_runs), generator=generator)
    topic_T, recalled_T = topics.repeat_interleave(TOPIC_TOKENS, 1)[:, :num_tokens]
    return topic_T, recalled_T


def _turned(position_T: Tensor, dim: int) -> Tensor:
    """Unit vectors that turn with the position, slowly to fast: [T, dim]."""
    pairs = dim // 2
    frequency_N = 1.0 / torch.logspace(0, 3, pairs)
    angle_TN = position_T.unsqueeze(1) * frequency_N
    return torch.cat((angle_TN.cos(), angle_TN.sin()), dim=1) / pairs**0.5


def _heavy(num_tokens: int, dim: int, generator: torch.Generator) -> Tensor:
    """One direction for the first tokens and a few others, nothing for the rest: [T, dim]."""
    heavy_TD = torch.zeros(num_tokens, dim)
    others_N = torch.randint(num_tokens, (num_tokens // HEAVY_EVERY,), generator=generator)
    heavy_TD[:4, 0] = 1.5
    heavy_TD[others_N, 0] = 1.2
    return heavy_TD
