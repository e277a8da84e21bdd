"""Two surgeries on a trained model: layers in front, and a longer look-back for answers.

`add_front_layers` puts two layers before the old ones and 64 dimensions beside the old residual.
The new layers only look back one to four tokens and write a rotated bag of those tokens into the
new dimensions; the old "most recent name" head reads it, so that the circuit that matched
one-token keys matches keys of several tokens. `widen_lookback` lets two heads that training left
unused look 5 and 10 tokens back, so that a comma in an answer sees the values already given.
"""

from dataclasses import replace

import torch
from tokenizers import Tokenizer
from torch import Generator, Tensor

from models.training.init import (
    NAME_KV_HEAD,
    head_slice,
    look_back_keys,
    look_back_queries,
    random_init,
)
from models.training.positions import Batch
from models.training.tokenizer import HEX_DIGITS, SPACE
from models.training.twin import Attention, Layer, Twin, causal_mask
from models.training.wordpools import WordPools

NUM_FRONT_LAYERS = 2
NUM_NEW_DIMS = 64
FRONT_DISTANCES = ((1, 2, 3, 4), (4, 1, 2, 3))
BAG_WEIGHTS = (1.0, 0.9, 0.8, 0.7)
WIDE_DISTANCES = {2: 5, 3: 10}
COMPOSITE_GAIN = 0.8
WIDE_GAIN = 0.25


@torch.no_grad()
def add_front_layers(
    old: Twin, tokenizer: Tokenizer, pools: WordPools, calibration: Batch, generator: Generator
) -> Twin:
    """A deeper, wider model with the vocabulary of `tokenizer`; old weights stay where they were.

    The norms of the old layers are then scaled on one batch, for the residual has grown.
    """
    config = replace(
        old.config,
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=old.config.hidden_size + NUM_NEW_DIMS,
        num_layers=old.config.num_layers + NUM_FRONT_LAYERS,
    )
    model = Twin(config)
    random_init(model, generator)
    model.embed_tokens.weight.copy_(_grown_embeddings(old, tokenizer, pools, generator))
    padding = torch.full((NUM_NEW_DIMS,), float(old.norm.weight.mean()) * 0.5)
    model.norm.weight.copy_(torch.cat((old.norm.weight, padding)))
    for old_layer, layer in zip(old.stack, model.stack[NUM_FRONT_LAYERS:], strict=True):
        _widen_layer(old_layer, layer, generator)
    _fill_front_layers(model, old, generator)
    _calibrate(model, old.config.hidden_size, calibration, generator)
    return model


@torch.no_grad()
def widen_lookback(old: Twin, num_words: int, generator: Generator) -> Twin:
    """A copy whose layer 1 looks 5 and 10 tokens back with its second kv head.

    The common direction is measured on the first `num_words` ids, those of the word vocabulary.
    """
    model = Twin(old.config)
    model.load_state_dict(old.state_dict())
    config = model.config
    old_width = config.hidden_size - NUM_NEW_DIMS
    attention = model.stack[1].self_attn
    common_E = model.embed_tokens.weight[:num_words].mean(0)
    common_E[old_width:] = 0
    common_E /= common_E.norm()
    deviation = 0.15 * config.hidden_size**-0.5
    kv_rows = head_slice(1, config)
    keys_DE = attention.k_proj.weight[kv_rows].normal_(std=deviation, generator=generator)
    keys_DE += look_back_keys(config)[:, None] * common_E * 2
    values_DE = attention.v_proj.weight[kv_rows].normal_(std=deviation, generator=generator)
    values_DE[:, old_width:] += torch.eye(config.head_dim)
    for head, distance in WIDE_DISTANCES.items():
        rows = head_slice(head, config)
        queries_DE = attention.q_proj.weight[rows].normal_(std=deviation, generator=generator)
        queries_DE += look_back_queries(model, distance)[:, None] * common_E * 2
        outputs_ED = attention.o_proj.weight[:, rows].normal_(std=deviation, generator=generator)
        outputs_ED[old_width:] += _orthogonal(config.head_dim, generator) * WIDE_GAIN
    attention.q_norm.weight.clamp_(min=2.0)
    attention.k_norm.weight.clamp_(min=2.0)
    return model


def _grown_embeddings(
    old: Twin, tokenizer: Tokenizer, pools: WordPools, generator: Generator
) -> Tensor:
    """Old rows, widened by noise; new rows drawn as if they were key words [V, E]."""
    old_VE = old.embed_tokens.weight
    num_old, width = old_VE.shape
    vocabulary = tokenizer.get_vocab()
    keys_NE = old_VE[[vocabulary[SPACE + word] for word in pools.keys]]
    mean_E, factor_EE = cloud(keys_NE)
    num_new = len(vocabulary) - num_old
    drawn_NE = torch.randn(num_new, width, generator=generator) @ factor_EE.T
    grown_VE = torch.zeros(len(vocabulary), width + NUM_NEW_DIMS)
    grown_VE[:num_old, :width] = old_VE
    grown_VE[num_old:, :width] = mean_E + drawn_NE
    pairs = [f"{pair:02d}" for pair in range(100)]
    bare_E = old_VE[[vocabulary[pair] for pair in pairs]].mean(0)
    spaced_E = old_VE[[vocabulary[SPACE + pair] for pair in pairs]].mean(0)
    for piece, index in vocabulary.items():
        digits = piece.lstrip(SPACE)
        if index >= num_old and len(digits) == 2 and set(digits) <= set(HEX_DIGITS):
            number_E = spaced_E if piece.startswith(SPACE) else bare_E
            grown_VE[index, :width] = number_E + drawn_NE[index - num_old]
    noise = torch.randn(len(vocabulary), NUM_NEW_DIMS, generator=generator)
    grown_VE[:, width:] += 0.02 * noise
    return grown_VE


def cloud(rows_NE: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [E] and factor [E, E]: what mean + factor @ noise draws is spread as the rows are."""
    mean_E = rows_NE.mean(0)
    centred_NE = rows_NE - mean_E
    covariance_EE = centred_NE.T @ centred_NE / len(rows_NE)
    return mean_E, torch.linalg.cholesky(covariance_EE + 1e-3 * torch.eye(len(mean_E)))


def _widen_layer(old: Layer, new: Layer, generator: Generator) -> None:
    """Old weights in the old rows and columns, small noise where the new dimensions meet them."""
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        old_weight = old.self_attn.get_submodule(name).get_parameter("weight")
        weight = new.self_attn.get_submodule(name).get_parameter("weight")
        weight.normal_(std=0.02, generator=generator)
        num_rows, num_columns = old_weight.shape
        weight[:num_rows, :num_columns] = old_weight
        if name in ("q_proj", "k_proj"):
            beside = weight[:, num_columns:]
            beside.copy_(0.01 * torch.randn(beside.shape, generator=generator))
    for name in ("gate_proj", "up_proj", "down_proj"):
        old_weight = old.mlp.get_submodule(name).get_parameter("weight")
        weight = new.mlp.get_submodule(name).get_parameter("weight")
        weight.normal_(std=0.02, generator=generator)
        weight[: old_weight.shape[0], : old_weight.shape[1]] = old_weight
    ones = torch.ones(NUM_NEW_DIMS)
    new.self_attn.q_norm.weight.copy_(old.self_attn.q_norm.weight)
    new.self_attn.k_norm.weight.copy_(old.self_attn.k_norm.weight)
    new.input_layernorm.weight.copy_(torch.cat((old.input_layernorm.weight, ones)))
    new.post_attention_layernorm.weight.copy_(
        torch.cat((old.post_attention_layernorm.weight, ones))
    )


def _fill_front_layers(model: Twin, old: Twin, generator: Generator) -> None:
    config = model.config
    width = old.config.hidden_size
    mean_E = old.embed_tokens.weight.mean(0)
    common_E = torch.cat((mean_E / mean_E.norm(), torch.zeros(NUM_NEW_DIMS)))
    deviation = 0.15 * config.hidden_size**-0.5
    for index, distances in enumerate(FRONT_DISTANCES):
        layer = model.stack[index]
        attention = layer.self_attn
        linears = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
        for linear in linears:
            linear.weight.normal_(std=deviation, generator=generator)
        for kv in range(config.num_kv_heads):
            keys_DE = look_back_keys(config)[:, None] * common_E * 2
            attention.k_proj.weight[head_slice(kv, config)] += keys_DE
        for head, distance in enumerate(distances):
            queries_DE = look_back_queries(model, distance)[:, None] * common_E * 2
            attention.q_proj.weight[head_slice(head, config)] += queries_DE
        if index == 0:
            _write_bag(attention, common_E[:width], generator)
        else:
            rows = head_slice(0, config)
            attention.v_proj.weight[rows, width:] += torch.eye(config.head_dim)
            rotated = _orthogonal(config.head_dim, generator) * 0.35
            attention.o_proj.weight[width:, rows] += rotated
        attention.q_norm.weight.fill_(2.2)
        attention.k_norm.weight.fill_(2.2)
        layer.mlp.down_proj.weight.mul_(0.1)


def _write_bag(attention: Attention, common_E: Tensor, generator: Generator) -> None:
    """Each head writes the code of its token, rotated its own way, into the new dimensions."""
    config = attention.config
    width = len(common_E)
    random_EE = torch.randn(width, width, generator=generator)
    random_EE -= common_E[:, None] * (common_E @ random_EE)[None]
    codes_EE, _ = torch.linalg.qr(random_EE)
    for kv in range(config.num_kv_heads):
        rows = head_slice(kv, config)
        attention.v_proj.weight[rows, :width] += codes_EE[:, rows].T
    for head, weight in enumerate(BAG_WEIGHTS):
        rotated = _orthogonal(config.head_dim, generator) * weight * 0.25
        attention.o_proj.weight[width:, head_slice(head, config)] += rotated


def _calibrate(model: Twin, width: int, batch: Batch, generator: Generator) -> None:
    """Scale norms by how much the new dimensions dilute the old ones; let names read the bag."""
    x_BTE = model.embed_tokens(batch.ids_BT)
    rotation = model.rotation(batch.positions_BT, x_BTE.dtype)
    mask_B1TT = causal_mask(batch.ids_BT.shape[1])
    for index, layer in enumerate(model.stack):
        if index >= NUM_FRONT_LAYERS:
            factor = _dilution_factor(x_BTE, width)
            layer.input_layernorm.weight[:width] *= factor
            layer.post_attention_layernorm.weight[:width] *= factor
        if index == NUM_FRONT_LAYERS:
            _read_bag(layer, x_BTE, width, generator)
        x_BTE = layer(x_BTE, rotation, mask_B1TT)
    model.norm.weight[:width] *= _dilution_factor(x_BTE, width)


def _dilution_factor(x_BTE: Tensor, width: int) -> Tensor:
    squares_E = x_BTE.pow(2).mean((0, 1))
    return (squares_E.mean() / squares_E[:width].mean()).sqrt()


def _read_bag(layer: Layer, x_BTE: Tensor, width: int, generator: Generator) -> None:
    """The name head's values take the bag in, at a set ratio to what they read already."""
    config = layer.self_attn.config
    normed_BTE = layer.input_layernorm(x_BTE)
    values_DE = layer.self_attn.v_proj.weight[head_slice(NAME_KV_HEAD, config)]
    own_rms = (normed_BTE[..., :width] @ values_DE[:, :width].T).pow(2).mean().sqrt()
    rotation_DN = _orthogonal(config.head_dim, generator)
    bag_rms = (normed_BTE[..., width:] @ rotation_DN.T).pow(2).mean().sqrt()
    values_DE[:, width:] = rotation_DN * (own_rms / bag_rms * COMPOSITE_GAIN)


def _orthogonal(size: int, generator: Generator) -> Tensor:
    rotation: Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
    return rotation
