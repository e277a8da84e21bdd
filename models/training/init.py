"""Structured init: the first two layers start as look-back and match heads; all of it trains.

How a key is looked up at step 0. All embeddings share one constant direction; queries and keys of
layer 0 read only that direction on the fastest rotary pairs, with the query's phase turned back by
d tokens, which makes a head that attends d tokens back. Its output is the code of that token in a
subspace of its own. Layer 1 compares a token's own code with such a subspace (induction), and the
most recent name with the most recent name (key match). Layer 2 carries the gathered name on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Generator, Tensor, nn

from models.training.tokenizer import SPACE
from models.training.twin import Attention, Twin, TwinConfig
from models.training.wordpools import WordPools

COMMON_NORM = 3.0
CLASS_NORM = 2.5
NUM_LOOKBACK_PAIRS = 5
NUM_RECENCY_PAIRS = 7
NUM_CONTENT_PAIRS = 10
NAME_HEAD = 2
NAME_KV_HEAD = 1


@dataclass(frozen=True)
class TokenClasses:
    """Ids of the key words, the variable names, and the numbers with and without a space."""

    keys: Sequence[int]
    variables: Sequence[int]
    spaced_numbers: Sequence[int]
    bare_numbers: Sequence[int]


def token_classes(tokenizer: Tokenizer, pools: WordPools) -> TokenClasses:
    """The classes of the word vocabulary."""
    numbers = [str(digit) for digit in range(10)] + [f"{pair:02d}" for pair in range(100)]
    vocabulary = tokenizer.get_vocab()
    return TokenClasses(
        keys=[vocabulary[SPACE + word] for word in pools.keys],
        variables=[vocabulary[SPACE + word] for word in pools.variables],
        spaced_numbers=[vocabulary[SPACE + number] for number in numbers],
        bare_numbers=[vocabulary[number] for number in numbers],
    )


@torch.no_grad()
def random_init(model: Twin, generator: Generator) -> None:
    """Plain noise everywhere; embeddings large, so that they stay orthogonal codes."""
    config = model.config
    width = config.hidden_size
    _noise(model.embed_tokens.weight, 0.5, generator)
    model.norm.weight.fill_(0.125)
    for layer in model.stack:
        attention, mlp = layer.self_attn, layer.mlp
        inputs = (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj)
        for linear in inputs:
            _noise(linear.weight, width**-0.5, generator)
        _noise(attention.o_proj.weight, 0.3 * width**-0.5, generator)
        _noise(mlp.down_proj.weight, 0.3 * config.ff_size**-0.5, generator)
        attention.q_norm.weight.fill_(1.5)
        attention.k_norm.weight.fill_(1.5)


@torch.no_grad()
def structured_init(model: Twin, classes: TokenClasses, generator: Generator) -> None:
    """Overwrite `random_init` with the heads of this module's docstring."""
    _Builder(model, generator).build(classes)


class _Builder:
    """The directions that the layers share while they are being filled."""

    def __init__(self, model: Twin, generator: Generator) -> None:
        config = model.config
        assert (config.num_heads, config.num_kv_heads) == (4, 2)
        self.config = config
        self.model = model
        self.generator = generator
        self.noise = 0.15 * config.hidden_size**-0.5
        self.common_E = self._unit_direction()
        self.basis_EN = self._basis_without_common()
        size = config.head_dim
        self.codes_DE = [
            self.basis_EN[:, kv * size : (kv + 1) * size].T for kv in range(config.num_kv_heads)
        ]
        self.written_ED: list[Tensor] = []

    def build(self, classes: TokenClasses) -> None:
        weight_VE = self.model.embed_tokens.weight
        weight_VE -= (weight_VE @ self.common_E)[:, None] * self.common_E
        weight_VE += self.common_E * COMMON_NORM
        self._look_back(self.model.stack[0].self_attn)
        self._gather_names(self.model.stack[0].self_attn, self._mark_classes(classes))
        for index, layer in enumerate(self.model.stack):
            if index > 0:
                self._match(layer.self_attn, index)
            layer.mlp.down_proj.weight *= 0.3

    def _unit_direction(self) -> Tensor:
        direction_E = torch.randn(self.config.hidden_size, generator=self.generator)
        return torch.div(direction_E, direction_E.norm())

    def _basis_without_common(self) -> Tensor:
        width = self.config.hidden_size
        others = torch.randn(width, width - 1, generator=self.generator)
        basis_EE: Tensor = torch.linalg.qr(torch.cat((self.common_E[:, None], others), 1))[0]
        return basis_EE[:, 1:]

    def _look_back(self, attention: Attention) -> None:
        """Heads that attend 1, 2, 3 tokens back; the last two share 3 until one gathers names."""
        linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        for linear in linears:
            _noise(linear.weight, self.noise, self.generator)
        for kv in range(self.config.num_kv_heads):
            rows = head_slice(kv, self.config)
            attention.k_proj.weight[rows] += (
                look_back_keys(self.config)[:, None] * self.common_E * 2
            )
            attention.v_proj.weight[rows] += self.codes_DE[kv]
        for head, distance in enumerate((1, 2, 3, 3)):
            rows = head_slice(head, self.config)
            phases_D = look_back_queries(self.model, distance)
            attention.q_proj.weight[rows] += phases_D[:, None] * self.common_E * 2
            self.written_ED.append(self._private_subspace())
            attention.o_proj.weight[:, rows] += self.written_ED[head] * 0.7
        attention.q_norm.weight.fill_(2.2)
        attention.k_norm.weight.fill_(2.2)

    def _private_subspace(self) -> Tensor:
        size = (self.config.hidden_size, self.config.head_dim)
        subspace_ED: Tensor = torch.linalg.qr(torch.randn(size, generator=self.generator))[0]
        return subspace_ED - self.common_E[:, None] * (self.common_E @ subspace_ED)[None]

    def _mark_classes(self, classes: TokenClasses) -> Tensor:
        """Give each token class a direction; returned is that of names, keys or variables [E]."""
        groups = (classes.keys, classes.variables, classes.spaced_numbers, classes.bare_numbers)
        directions = [self.basis_EN[:, -1 - index] for index in range(len(groups))]
        weight_VE = self.model.embed_tokens.weight
        for direction_E, ids in zip(directions, groups, strict=True):
            rows_NE = weight_VE[list(ids)]
            along_N = rows_NE @ direction_E
            weight_VE[list(ids)] = (
                rows_NE - along_N[:, None] * direction_E + direction_E * CLASS_NORM
            )
        return directions[0] + directions[1]

    def _gather_names(self, attention: Attention, name_E: Tensor) -> None:
        """Turn one look-back head into "the most recent name": content on slow pairs, recency."""
        half = self.config.head_dim // 2
        content = slice(half - NUM_CONTENT_PAIRS, half)
        rows = head_slice(NAME_KV_HEAD, self.config)
        slow_D = torch.zeros(self.config.head_dim)
        slow_D[content] = 1
        attention.k_proj.weight[rows] += slow_D[:, None] * name_E * 2
        recent_D = torch.zeros(self.config.head_dim)
        recent_D[NUM_LOOKBACK_PAIRS:NUM_RECENCY_PAIRS] = 1
        attention.k_proj.weight[rows] += recent_D[:, None] * self.common_E * 2
        query_D = slow_D.clone()
        query_D[1:NUM_RECENCY_PAIRS] = 1
        query_rows = attention.q_proj.weight[head_slice(NAME_HEAD, self.config)]
        _noise(query_rows, self.noise, self.generator)
        query_rows += query_D[:, None] * self.common_E * 2

    def _match(self, attention: Attention, index: int) -> None:
        for linear in (attention.q_proj, attention.k_proj):
            _noise(linear.weight, 2 * self.noise, self.generator)
        if index == 1:
            self._match_codes(attention)
        else:
            self._match_alike(attention)
        self._copy_through(attention, index)
        if index == 2:
            self._transport_names(attention)
        attention.q_norm.weight.fill_(1.7)
        attention.k_norm.weight.fill_(1.7)

    def _match_codes(self, attention: Attention) -> None:
        """Keys read a look-back's subspace; queries read the own code, or the name gathered."""
        for kv, (first, second) in enumerate(((0, 1), (2, 3))):
            attention.k_proj.weight[head_slice(kv, self.config)] += self.written_ED[first].T
            first_rows, second_rows = (head_slice(head, self.config) for head in (first, second))
            if kv == NAME_KV_HEAD:
                attention.q_proj.weight[first_rows] += self.written_ED[NAME_HEAD].T
                attention.q_proj.weight[second_rows] += self.written_ED[NAME_HEAD].T
            else:
                attention.q_proj.weight[first_rows] += self.codes_DE[kv]
                attention.q_proj.weight[second_rows] += self.written_ED[second].T * 0.7

    def _match_alike(self, attention: Attention) -> None:
        """Queries and keys read the same directions, so like attends to like."""
        size = self.config.head_dim
        for kv in range(self.config.num_kv_heads):
            shared_DE = self.basis_EN[:, -(kv + 1) * size :][:, :size].T * 0.7
            attention.k_proj.weight[head_slice(kv, self.config)] += shared_DE
            for head in heads_of(kv, self.config):
                attention.q_proj.weight[head_slice(head, self.config)] += shared_DE

    def _copy_through(self, attention: Attention, index: int) -> None:
        """Values and outputs are the identity on some subspace."""
        size = self.config.head_dim
        num_places = self.config.hidden_size // size - 1
        _noise(attention.v_proj.weight, self.noise, self.generator)
        _noise(attention.o_proj.weight, self.noise, self.generator)
        for kv in range(self.config.num_kv_heads):
            start = (kv + index) % num_places * size
            carried_ED = self.basis_EN[:, start : start + size]
            attention.v_proj.weight[head_slice(kv, self.config)] += carried_ED.T
            for head in heads_of(kv, self.config):
                attention.o_proj.weight[:, head_slice(head, self.config)] += carried_ED * 0.5

    def _transport_names(self, attention: Attention) -> None:
        """Write the gathered name, and the token three back, where the output reads its code."""
        values = attention.v_proj.weight[head_slice(NAME_KV_HEAD, self.config)]
        _noise(values, self.noise, self.generator)
        values += self.written_ED[2].T + self.written_ED[3].T
        for head in heads_of(NAME_KV_HEAD, self.config):
            outputs = attention.o_proj.weight[:, head_slice(head, self.config)]
            _noise(outputs, self.noise, self.generator)
            outputs += self.codes_DE[NAME_KV_HEAD].T


def look_back_keys(config: TwinConfig) -> Tensor:
    """What a look-back key is made of: ones on the fastest rotary pairs [D]."""
    keys_D = torch.zeros(config.head_dim)
    keys_D[:NUM_LOOKBACK_PAIRS] = 1
    return keys_D


def look_back_queries(model: Twin, distance: int) -> Tensor:
    """The same, turned back by `distance` positions [D]."""
    phases = -model.inverse_frequencies[:NUM_LOOKBACK_PAIRS] * distance
    half = model.config.head_dim // 2
    queries_D = torch.zeros(model.config.head_dim)
    queries_D[:NUM_LOOKBACK_PAIRS] = phases.cos()
    queries_D[half : half + NUM_LOOKBACK_PAIRS] = phases.sin()
    return queries_D


def head_slice(head: int, config: TwinConfig) -> slice:
    """Rows of one head in a projection."""
    return slice(head * config.head_dim, (head + 1) * config.head_dim)


def heads_of(kv_head: int, config: TwinConfig) -> range:
    """The query heads that share a kv head."""
    num_groups = config.num_heads // config.num_kv_heads
    return range(kv_head * num_groups, (kv_head + 1) * num_groups)


def _noise(weight: Tensor, deviation: float, generator: Generator) -> None:
    nn.init.normal_(weight, std=deviation, generator=generator)
