"""The training twin of Qwen3: same arithmetic, explicit positions, a bias on keys.

Letters beyond the project's key: E hidden width, V vocabulary, A answer tokens of a batch.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

MASKED = -1e9


@dataclass(frozen=True, kw_only=True)
class TwinConfig:
    """Sizes of one model; the defaults are those of the first stage."""

    vocab_size: int
    hidden_size: int = 256
    ff_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    # A slow base: half of the frequencies then hardly turn within 32k positions.
    rope_theta: float = 1e10
    norm_eps: float = 1e-6


@dataclass(frozen=True)
class Rotation:
    """cos_B1TD, sin_B1TD of the rotary embedding."""

    cos_B1TD: Tensor
    sin_B1TD: Tensor

    def apply(self, x_BHTD: Tensor) -> Tensor:
        """The rotated heads [B, H, T, D]."""
        low, high = x_BHTD.chunk(2, dim=-1)
        return x_BHTD * self.cos_B1TD + torch.cat((-high, low), -1) * self.sin_B1TD


class Norm(nn.Module):
    """RMS norm."""

    def __init__(self, size: int, eps: float) -> None:
        """Start at weight one."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalised last dimension, in the dtype of the input."""
        return functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Causal grouped-query attention with normed queries and keys."""

    def __init__(self, config: TwinConfig) -> None:
        """Projections without bias."""
        super().__init__()
        self.config = config
        width, head_dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(width, config.num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(width, config.num_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(width, config.num_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_heads * head_dim, width, bias=False)
        self.q_norm = Norm(head_dim, config.norm_eps)
        self.k_norm = Norm(head_dim, config.norm_eps)

    def forward(self, x_BTE: Tensor, rotation: Rotation, mask_B1TT: Tensor) -> Tensor:
        """[B, T, E]; the mask is added to the logits."""
        num_groups = self.config.num_heads // self.config.num_kv_heads
        q_BHTD = rotation.apply(self.q_norm(self._heads(self.q_proj(x_BTE))).transpose(1, 2))
        k_BKTD = rotation.apply(self.k_norm(self._heads(self.k_proj(x_BTE))).transpose(1, 2))
        v_BKTD = self._heads(self.v_proj(x_BTE)).transpose(1, 2)
        k_BHTD = k_BKTD.repeat_interleave(num_groups, 1)
        v_BHTD = v_BKTD.repeat_interleave(num_groups, 1)
        scaled_BHTD = q_BHTD * self.config.head_dim**-0.5
        # Written out: the backward of torch's fused CPU attention is five times slower here.
        logits_BHTT = torch.matmul(scaled_BHTD, k_BHTD.transpose(-1, -2)).add_(mask_B1TT)
        mixed_BHTD = torch.matmul(torch.softmax(logits_BHTT, -1), v_BHTD)
        out_BTE: Tensor = self.o_proj(mixed_BHTD.transpose(1, 2).flatten(2))
        return out_BTE

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.config.head_dim)


class FeedForward(nn.Module):
    """Gated feed-forward layer."""

    def __init__(self, config: TwinConfig) -> None:
        """Projections without bias."""
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.ff_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.ff_size, bias=False)
        self.down_proj = nn.Linear(config.ff_size, config.hidden_size, bias=False)

    def forward(self, x_BTE: Tensor) -> Tensor:
        """[B, T, E]."""
        gated: Tensor = functional.silu(self.gate_proj(x_BTE)) * self.up_proj(x_BTE)
        out_BTE: Tensor = self.down_proj(gated)
        return out_BTE


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual."""

    def __init__(self, config: TwinConfig) -> None:
        """Name the parts as Qwen3 does, so that weights export by name."""
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = Norm(config.hidden_size, config.norm_eps)
        self.post_attention_layernorm = Norm(config.hidden_size, config.norm_eps)

    def forward(self, x_BTE: Tensor, rotation: Rotation, mask_B1TT: Tensor) -> Tensor:
        """[B, T, E]."""
        x_BTE = x_BTE + self.self_attn(self.input_layernorm(x_BTE), rotation, mask_B1TT)
        out_BTE: Tensor = x_BTE + self.mlp(self.post_attention_layernorm(x_BTE))
        return out_BTE


class Twin(nn.Module):
    """The model; its weights are Qwen3's without the prefix `model.`."""

    inverse_frequencies: Tensor

    def __init__(self, config: TwinConfig) -> None:
        """Build the parts; `init.py` or a checkpoint fills them."""
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = Norm(config.hidden_size, config.norm_eps)
        exponents = torch.arange(0, config.head_dim, 2).float() / config.head_dim
        frequencies = 1.0 / config.rope_theta**exponents
        self.register_buffer("inverse_frequencies", frequencies, persistent=False)

    @property
    def stack(self) -> list[Layer]:
        """The layers, typed."""
        return cast(list[Layer], list(self.layers))

    def forward(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor,
        key_bias_BT: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Normed hidden states [B, T, E]; `key_bias_BT` float32 is added to each key's logits."""
        x_BTE = self.embed_tokens(ids_BT).to(dtype)
        rotation = self.rotation(positions_BT, dtype)
        mask_B1TT = causal_mask(ids_BT.shape[1], key_bias_BT).to(dtype)
        for layer in self.stack:
            x_BTE = layer(x_BTE, rotation, mask_B1TT)
        out_BTE: Tensor = self.norm(x_BTE)
        return out_BTE

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., E]; input and output embedding are one."""
        return hidden @ self.embed_tokens.weight.to(hidden.dtype).T

    def rotation(self, positions_BT: Tensor, dtype: torch.dtype) -> Rotation:
        """Cosines and sines of all positions."""
        angles_BTP = positions_BT[..., None].float() * self.inverse_frequencies
        angles_B1TD = torch.cat((angles_BTP, angles_BTP), -1)[:, None]
        return Rotation(angles_B1TD.cos().to(dtype), angles_B1TD.sin().to(dtype))


def causal_mask(num_tokens: int, key_bias_BT: Tensor | None = None) -> Tensor:
    """What is added to the logits, float32 [1 or B, 1, T, T]."""
    mask_TT = torch.full((num_tokens, num_tokens), MASKED).triu_(1)
    if key_bias_BT is None:
        return mask_TT[None, None]
    return mask_TT[None, None] + key_bias_BT[:, None, None]
