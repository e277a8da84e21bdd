"""The plug into an unpatched Hugging Face model: cache layers that return handles.

Nothing between a cache's `update` and the attention function looks at keys and values, so `update`
may return the layer itself, and the registered attention function finds them there. A forward pass
is packed rows `[1, rows]` with explicit positions; the step that says whose rows they are travels
as a keyword argument.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from backends.step import Step

NAME = "kvloom"


class Handle(CacheLayerMixin):
    """A cache layer that hands itself over instead of tensors; the pages hold the KV."""

    is_sliding = False
    is_compileable = False

    def __init__(self) -> None:
        """Hold nothing."""
        super().__init__()  # type: ignore[no-untyped-call]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare."""
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Any, Any]:
        """Keep the new keys and values, [1, K, N, D], for the attention function."""
        self.new = (key_states, value_states)
        return self, self

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        """The model builds no mask: rows carry their positions."""
        return int(query_length), 0

    def get_seq_length(self) -> int:
        """Positions are explicit."""
        return 0

    def get_max_length(self) -> int:
        """No limit of its own."""
        return -1


def paged_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Handle,
    value: Handle,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that the model calls in each layer; query is [1, H, N, D]."""
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError(
            "the model caps its logits or has learned sinks, which backend=transformers does not "
            "serve; choose another model.path"
        )
    step: Step = kwargs["kvloom_step"]
    new_key, new_value = (tensor[0].transpose(0, 1) for tensor in key.new)
    query_NHD = query[0].transpose(0, 1)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer: int = module.layer_idx  # type: ignore[assignment]
    return step.attend(layer, query_NHD, new_key, new_value, scale).unsqueeze(0), None


def no_mask(*_: Any, **__: Any) -> None:
    """Rows of several sequences share a pass; the attention function knows whose is whose."""
    return


def plug_in(model: Any) -> Cache:
    """Make a model call `paged_attention`, and give the cache to pass to it."""
    AttentionInterface.register(NAME, paged_attention)
    AttentionMaskInterface.register(NAME, no_mask)
    model.set_attn_implementation(NAME)
    return Cache(layers=[Handle() for _ in range(model.config.num_hidden_layers)])
