"""Shows what attention sees: queries and keys after their rotation, of an unpatched model."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from models.fit.base import Seen

NAME = "kvloom_watched"


def watched_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any
) -> Any:
    """The library's own attention, which tells `kvloom_watcher` what it is called with."""
    watcher = kwargs.pop("kvloom_watcher")
    watcher(module.layer_idx, query[0], key[0])
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


def watch(
    model: Any, prompt_ids: Sequence[int], rows_M: Tensor, see: Callable[[Seen], None]
) -> None:
    """Run a prompt through a model, and show each layer of it."""
    AttentionInterface.register(NAME, watched_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)

    def show(layer: int, query_HTD: Tensor, key_KTD: Tensor) -> None:
        see(Seen(layer, query_HTD.float().cpu(), key_KTD.float().cpu(), rows_M))

    with torch.inference_mode():
        ids = torch.tensor([list(prompt_ids)], device=model.device)
        model(input_ids=ids, use_cache=False, logits_to_keep=1, kvloom_watcher=show)
