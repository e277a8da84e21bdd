"""SeerAttention-R's distillation (arXiv:2506.08889, section 3.3): a gate learns where mass is.

Targets are the attention of each row, the largest in each block and over the query group, as a
distribution; the loss is the KL divergence of the gate's softmax from it, over complete blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from models.fit.base import Advance, Fitter, Seen
from sparse_algos.gates import pooled
from sparse_algos.model_shape import ModelShape, Rotary

UNSEEN = -1e9


@dataclass(frozen=True, kw_only=True)
class Training:
    """Steps of AdamW over one prompt each, the learning rate falling to 0 along a cosine.

    The paper: 800 steps of 16 sequences of 32k tokens, learning rate 1e-3.
    """

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


class _Lesson(NamedTuple):
    """One layer of one prompt: query_KME and pool_KPE are what the gate takes, target_KMP."""

    layer: int
    query_KME: Tensor
    pool_KPE: Tensor
    target_KMP: Tensor
    rows_M: Tensor


class Gates(Fitter):
    """Gates for blocks of one size; they begin as mean query times mean key."""

    def __init__(
        self, model: ModelShape, block_tokens: int, training: Training, advance: Advance
    ) -> None:
        """See Fitter; `advance` is called after each step."""
        super().__init__(model)
        assert model.rotary is not None, "the retriever refuses such a model"
        self._rotary: Rotary = model.rotary
        self._size = block_tokens
        self._training = training
        self._advance = advance
        self._lessons: list[list[_Lesson]] = []

    def see(self, seen: Seen) -> None:
        """See Fitter; layer 0 begins a prompt."""
        if seen.layer == 0:
            self._lessons.append([])
        heads, num_blocks = self.model.num_kv_heads, seen.key_KTD.shape[1] // self._size
        whole = num_blocks * self._size
        key_KTD = seen.key_KTD[:, :whole]
        plain_KTD = self._rotary.turned(key_KTD, torch.arange(whole), back=True)
        blocks_KPSD = plain_KTD.unflatten(1, (-1, self._size))
        pool_KPE = pooled(blocks_KPSD, torch.ones(blocks_KPSD.shape[:3], dtype=torch.bool))
        query_HMD = self._rotary.turned(seen.query_HTD[:, seen.rows_M], seen.rows_M, back=True)
        query_KME = query_HMD.unflatten(0, (heads, -1)).transpose(1, 2).flatten(2)
        mass_KMT = seen.attention().amax(dim=1)[..., :whole]
        target_KMP = mass_KMT.unflatten(2, (-1, self._size)).amax(dim=3)
        target_KMP = target_KMP.masked_fill(~self._complete(seen.rows_M, num_blocks), 0)
        target_KMP = target_KMP / target_KMP.sum(dim=2, keepdim=True).clamp(min=1e-9)
        self._lessons[-1].append(_Lesson(seen.layer, query_KME, pool_KPE, target_KMP, seen.rows_M))

    def tensors(self) -> dict[str, Tensor]:
        """See SeerAttentionR.tensor_shapes."""
        weights = {name: one.requires_grad_() for name, one in self._start().items()}
        lessons = [_stack(layers) for layers in self._lessons]
        optimizer = torch.optim.AdamW(
            weights.values(),
            lr=self._training.learning_rate,
            weight_decay=self._training.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._training.steps)
        for step in range(self._training.steps):
            optimizer.zero_grad()
            loss = self._loss(weights, lessons[step % len(lessons)])
            loss.backward()
            optimizer.step()
            schedule.step()
            self._advance(f"loss {loss.item():.3f}")
        return {name: one.detach() for name, one in weights.items()}

    def _start(self) -> dict[str, Tensor]:
        model = self.model
        layers, heads, dim = model.num_layers, model.num_kv_heads, model.head_dim
        group, one_DD = model.num_heads // heads, torch.eye(dim)
        mean_ED = one_DD.repeat(group, 1) / group
        pools_ED = torch.cat((0 * one_DD, 0 * one_DD, one_DD))
        return {
            "query": mean_ED.repeat(layers, heads, 1, 1),
            "key": pools_ED.repeat(layers, heads, 1, 1),
        }

    def _loss(self, weights: dict[str, Tensor], lesson: _Lesson) -> Tensor:
        """Mean over layers, heads and rows; the tensors of a lesson are of all layers."""
        num_blocks = lesson.pool_KPE.shape[-2]
        query_LKMD = self._rotary.turned(lesson.query_KME @ weights["query"], lesson.rows_M)
        start_P = torch.arange(num_blocks) * self._size
        key_LKPD = self._rotary.turned(lesson.pool_KPE @ weights["key"], start_P)
        logits_LKMP = query_LKMD @ key_LKPD.mT * self.model.head_dim**-0.5
        complete_MP = self._complete(lesson.rows_M, num_blocks)
        gate_LKMP = log_softmax(logits_LKMP.masked_fill(~complete_MP, UNSEEN), dim=-1)
        target_LKMP = lesson.target_KMP
        entropy_LKMP = torch.special.xlogy(target_LKMP, target_LKMP)
        return (entropy_LKMP - target_LKMP * gate_LKMP).sum(dim=-1).mean()

    def _complete(self, rows_M: Tensor, num_blocks: int) -> Tensor:
        """Blocks that end before or at each row, bool [M, P]."""
        end_P = (torch.arange(num_blocks) + 1) * self._size
        return end_P <= rows_M.unsqueeze(1) + 1


def _stack(layers: Sequence[_Lesson]) -> _Lesson:
    """One prompt: the tensors of its layers, layers outermost."""
    query, pool, target = (
        torch.stack([getattr(one, name) for one in layers])
        for name in ("query_KME", "pool_KPE", "target_KMP")
    )
    # Clones: what was made in inference mode takes no part in gradients.
    return _Lesson(-1, query.clone(), pool.clone(), target.clone(), layers[0].rows_M)
