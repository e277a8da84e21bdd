"""The third surgery: two more layers, wider feed-forward layers, and capitals cut in pairs.

The new layers write nothing at first, so that what was learnt stays. One stands before the layer
that gathers names: its first head starts as "the numbers just given", for an answer of several
values has to know which of them it gave. The other stands behind the look-up.
"""

from dataclasses import replace

import torch
from tokenizers import Tokenizer
from torch import Generator, Tensor

from models.training.grow import cloud
from models.training.init import NUM_CONTENT_PAIRS, head_slice, random_init
from models.training.tokenizer import LINE_OPENERS, SPACE
from models.training.twin import Attention, Layer, Twin

# Old layers by their place in the new stack, None for a new one.
ORDER = (0, 1, None, 2, 3, None, 4, 5)
FF_SIZE = 384
GATHER_PLACE = 2
# Rotary pairs whose agreement fades over some thirty tokens, the length of an answer.
RECENCY_PAIRS = slice(3, 7)
OUTPUT_NOISE = 0.02


@torch.no_grad()
def deepen(old: Twin, before: Tokenizer, after: Tokenizer, generator: Generator) -> Twin:
    """A deeper model for the vocabulary `after`; pieces of `before` keep their embeddings."""
    model = Twin(
        replace(
            old.config,
            vocab_size=after.get_vocab_size(),
            num_layers=len(ORDER),
            ff_size=FF_SIZE,
        )
    )
    random_init(model, generator)
    model.embed_tokens.weight.copy_(_embeddings(old, before, after, generator))
    model.norm.load_state_dict(old.norm.state_dict())
    for source, layer in zip(ORDER, model.stack, strict=True):
        if source is None:
            layer.self_attn.o_proj.weight.normal_(std=OUTPUT_NOISE / 10, generator=generator)
            layer.mlp.down_proj.weight.normal_(std=OUTPUT_NOISE / 10, generator=generator)
        else:
            _copy_layer(old.stack[source], layer, generator)
    _gather_numbers(model.stack[GATHER_PLACE].self_attn, model, before)
    return model


def _copy_layer(old: Layer, new: Layer, generator: Generator) -> None:
    """All old weights; feed-forward rows that are new write next to nothing."""
    new.self_attn.load_state_dict(old.self_attn.state_dict())
    new.input_layernorm.load_state_dict(old.input_layernorm.state_dict())
    new.post_attention_layernorm.load_state_dict(old.post_attention_layernorm.state_dict())
    size = old.mlp.gate_proj.weight.shape[0]
    new.mlp.gate_proj.weight[:size] = old.mlp.gate_proj.weight
    new.mlp.up_proj.weight[:size] = old.mlp.up_proj.weight
    new.mlp.down_proj.weight.normal_(std=OUTPUT_NOISE / 10, generator=generator)
    new.mlp.down_proj.weight[:, :size] = old.mlp.down_proj.weight


def _embeddings(old: Twin, before: Tokenizer, after: Tokenizer, generator: Generator) -> Tensor:
    """Old rows by piece; a pair of capitals is drawn around the mean of the old variables [V, E].

    Pieces without a space are drawn around the mean of the numbers that continue one.
    """
    old_VE = old.embed_tokens.weight
    old_ids, new_ids = before.get_vocab(), after.get_vocab()
    names_NE = old_VE[[old_ids[piece] for piece in set(old_ids) - set(new_ids)]]
    name_E, factor_EE = cloud(names_NE)
    width = old_VE.shape[1]
    middle_E = old_VE[[old_ids[f"{pair:02d}"] for pair in range(100)]].mean(0)
    grown_VE = torch.zeros(len(new_ids), width)
    for piece, index in new_ids.items():
        if piece in old_ids:
            grown_VE[index] = old_VE[old_ids[piece]]
        elif piece in LINE_OPENERS:
            grown_VE[index] = old_VE[old_ids[SPACE + piece]]
        else:
            centre_E = name_E if piece.startswith(SPACE) else middle_E
            grown_VE[index] = centre_E + factor_EE @ torch.randn(width, generator=generator)
    return grown_VE


def _gather_numbers(attention: Attention, model: Twin, tokenizer: Tokenizer) -> None:
    """The first kv head marks numbers that open a value; two query heads find the recent ones."""
    config = model.config
    vocabulary = tokenizer.get_vocab()
    weight_VE = model.embed_tokens.weight
    numbers_NE = weight_VE[[vocabulary[f"{SPACE}{pair:02d}"] for pair in range(100)]]
    mean_E = weight_VE.mean(0)
    common_E = mean_E / mean_E.norm()
    number_E = numbers_NE.mean(0) - mean_E
    number_E = number_E / number_E.norm()
    half = config.head_dim // 2
    content_D, recency_D = torch.zeros(config.head_dim), torch.zeros(config.head_dim)
    content_D[half - NUM_CONTENT_PAIRS : half] = 1
    recency_D[RECENCY_PAIRS] = 1
    keys_DE = attention.k_proj.weight[head_slice(0, config)]
    keys_DE += 2 * (content_D[:, None] * number_E + recency_D[:, None] * common_E)
    for head in range(config.num_heads // config.num_kv_heads):
        queries_DE = attention.q_proj.weight[head_slice(head, config)]
        queries_DE += 2 * (content_D + recency_D)[:, None] * common_E
