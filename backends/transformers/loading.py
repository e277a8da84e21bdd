"""Models: what they are before a weight is read, and then the weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils import logging

from sparse_algos.model_shape import ModelShape, Rotary

# Shapes of random models: `toy` runs anywhere, `wide` has the KV of an 8B model in two layers,
# 1b and 8b are those of Llama 3 (arXiv:2407.21783, table 3; Llama 3.2 model card).
SHAPES: dict[str, dict[str, Any]] = {
    "toy": {
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    },
    "wide": {
        "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 2,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    },
    "1b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    },
    "8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    },
}  # fmt: skip
DUMMY_CONTEXT = 131072
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What the memory and the preflight need of a model; `config` is the library's own."""

    name: str
    config: Any
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_tokens: int
    windowed_layers: frozenset[int]
    window: int | None
    dtype: torch.dtype
    rotary: Rotary | None = None

    @property
    def shape(self) -> ModelShape:
        """What algorithms may know of it."""
        return ModelShape(
            name=self.name,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            rotary=self.rotary,
        )


def describe_local(path: str, dtype: str, *, download: bool) -> ModelInfo:
    """A folder or a hub id; raises ValueError when there is no model, or not one of ours."""
    if not download and not (Path(path) / "config.json").is_file() and "/" not in path.strip("/."):
        raise ValueError(_absent(path))
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=not download)
    except (OSError, ValueError) as error:
        raise ValueError(_absent(path)) from error
    return _describe(Path(path).name, config, dtype)


def describe_dummy(shape: str, num_layers: int | None, dtype: str, vocab_size: int) -> ModelInfo:
    """Random weights of a named shape, with the vocabulary of the tokenizer in use."""
    dims = SHAPES[shape] | ({"num_hidden_layers": num_layers} if num_layers else {})
    config = LlamaConfig(
        **dims, vocab_size=vocab_size, max_position_embeddings=DUMMY_CONTEXT, eos_token_id=None
    )
    return _describe(f"dummy-{shape}", config, dtype)


def describe_config(name: str, config: Any, dtype: str) -> ModelInfo:
    """A model whose config is there; raises ValueError when it is not one of ours."""
    return _describe(name, config, dtype)


def load_local(info: ModelInfo, path: str, device: torch.device, *, download: bool) -> Any:
    """The weights, in evaluation mode."""
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        path, config=info.config, dtype=info.dtype, local_files_only=not download
    )
    return _ready(model, device)


def load_dummy(info: ModelInfo, device: torch.device, seed: int = 0) -> Any:
    """Random weights that depend on the seed alone."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(info.config, dtype=info.dtype)
    return _ready(model, device)


def count_parameters(info: ModelInfo) -> int:
    """Of the model, without a weight of it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(info.config)
    return sum(one.numel() for one in model.parameters())


def load_tokenizer(path: str, *, download: bool = False) -> Any:
    """The tokenizer beside a model; raises ValueError when there is none."""
    # Prompts beyond the model's length are refused with our own words, in the preflight.
    logging.set_verbosity_error()
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=not download)
    except (OSError, ValueError) as error:
        if (Path(path) / "config.json").is_file():
            raise ValueError(f"model.path={path!r} has no tokenizer; save one there") from error
        raise ValueError(_absent(path)) from error


def stop_ids(config: Any) -> frozenset[int]:
    """Token ids that end an answer."""
    ids = config.eos_token_id
    if ids is None:
        return frozenset()
    return frozenset(ids if isinstance(ids, list) else [ids])


def _ready(model: Any, device: torch.device) -> Any:
    return model.to(device).eval()


def _describe(name: str, config: Any, dtype: str) -> ModelInfo:
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None) or [FULL] * config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    if getattr(config, "layer_types", None) is None and window is not None:
        kinds = [SLIDING] * config.num_hidden_layers
    _refuse_unserved(name, config, kinds)
    num_heads = config.num_attention_heads
    return ModelInfo(
        name=name,
        config=config,
        num_layers=config.num_hidden_layers,
        num_heads=num_heads,
        num_kv_heads=getattr(config, "num_key_value_heads", None) or num_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // num_heads,
        max_tokens=config.max_position_embeddings,
        windowed_layers=frozenset(i for i, kind in enumerate(kinds) if kind == SLIDING),
        window=window,
        dtype=_dtype(config, dtype),
        rotary=_rotary(config),
    )


def _rotary(config: Any) -> Rotary | None:
    """How keys are rotated; None where it is not one rotation of whole heads for all layers."""
    rope = getattr(config, "rope_parameters", None)
    if not rope or "rope_type" not in rope or rope.get("partial_rotary_factor", 1.0) != 1.0:
        return None
    kind = rope["rope_type"]
    if kind == "default":
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return Rotary(rope["rope_theta"] ** -(torch.arange(0, dim, 2).float() / dim))
    if kind not in ("linear", "llama3", "yarn"):
        return None
    frequency_E, factor = ROPE_INIT_FUNCTIONS[kind](config, None)
    return Rotary(frequency_E.float(), float(factor))


def _refuse_unserved(name: str, config: Any, kinds: list[str]) -> None:
    reasons = []
    if others := sorted(set(kinds) - {FULL, SLIDING}):
        reasons.append(f"layers of kind {', '.join(others)}")
    if getattr(config, "attn_logit_softcapping", None) is not None:
        reasons.append("capped attention logits")
    if getattr(config, "kv_lora_rank", None) is not None:
        reasons.append("latent KV")
    if reasons:
        raise ValueError(
            f"model.path={name!r} has {' and '.join(reasons)}, which backend=transformers does "
            "not serve; choose a model with full or sliding-window attention"
        )


def _dtype(config: Any, dtype: str) -> torch.dtype:
    if dtype == "auto":
        return getattr(config, "dtype", None) or torch.float32
    found: torch.dtype = getattr(torch, dtype)
    return found


def _absent(path: str) -> str:
    return (
        f"model.path={path!r} is no folder with a readable config.json and no cached hub id; give "
        "a folder, fetch one where there is a network (hf download ID --local-dir FOLDER), or set "
        "model.download=true to fetch a hub id"
    )
