"""SeerAttention-R (Gao et al., arXiv:2506.08889): blocks by a distilled gate.

Blocks are chosen by a budget; a threshold on the gate's softmax, the paper's other way, is left
out.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from sparse_algos.gates import pooled, stacked
from sparse_algos.index_data import Keys, Queries, Summaries, TensorSpec
from sparse_algos.model_shape import ModelShape, Rotary
from sparse_algos.trained import TrainedRetriever, per_head
from sparse_algos.units import BlockRetriever


@dataclass(frozen=True, kw_only=True)
class SeerAttentionR(BlockRetriever, TrainedRetriever):
    """Ranks blocks by one gate query per kv head, times one gate key per block (section 3.1).

    block_tokens: tokens of a block; gates are trained for one size.
    """

    _rotary: Rotary | None = field(default=None, repr=False, compare=False)

    scored: ClassVar[str | None] = "gate"
    trained: ClassVar[str | None] = "gates"
    needs_positions: ClassVar[bool] = True

    @property
    def made_by(self) -> str:
        """See TrainedRetriever."""
        return "python -m models.fit algo=seerattention_r model=..."

    @property
    def waits(self) -> int | None:
        """A gate key is worked out when its block is complete."""
        return 0

    def tensor_shapes(self, model: ModelShape) -> dict[str, tuple[int, ...]]:
        """From all queries of a group, and from three pools of keys, to a gate's D channels."""
        heads, dim = (model.num_layers, model.num_kv_heads), model.head_dim
        group = model.num_heads // model.num_kv_heads
        return {"query": (*heads, group * dim, dim), "key": (*heads, 3 * dim, dim)}

    def with_tensors(self, found: dict[str, Tensor], model: ModelShape) -> Self:
        """See TrainedRetriever; takes the names of the paper's release too, see `stacked`."""
        if model.rotary is None:
            raise ValueError(
                "algo=seerattention_r turns keys back to where they have no position, and how "
                f"model {model.name} rotates them is not known; choose another algo or model"
            )
        fitted = super().with_tensors(stacked(found, model), model)
        return replace(fitted, _rotary=model.rotary)

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The gate key."""
        return {"gate": TensorSpec((head_dim,), dtype)}

    def build(self, keys: Keys) -> Summaries:
        """See Retriever."""
        rotary = self._known_rotary()
        _, num_blocks, size, _ = keys.key_RPSD.shape
        nth_P = torch.arange(num_blocks, device=keys.first_R.device)
        start_RP = (keys.first_R.unsqueeze(1) + nth_P) * size
        token_RPS = start_RP.unsqueeze(2) + torch.arange(size, device=nth_P.device)
        plain_RPSD = rotary.turned(keys.key_RPSD, token_RPS, back=True)
        gate_RPD = per_head(self.tensor("key", keys.layer), pooled(plain_RPSD, keys.live_RPS))
        return {"gate": rotary.turned(gate_RPD, start_RP).to(keys.key_RPSD.dtype)}

    def scoring_query(self, queries: Queries) -> Tensor:
        """The gate query of a kv head over sqrt(D), again for each query of its group."""
        rotary, position_RM = self._known_rotary(), queries.position_RM
        query_RMGD = queries.query_RQD.unflatten(1, (position_RM.shape[1], -1))
        group, dim = query_RMGD.shape[2:]
        plain_RMGD = rotary.turned(query_RMGD, position_RM.unsqueeze(2), back=True)
        gate_RMD = per_head(self.tensor("query", queries.layer), plain_RMGD.flatten(2))
        gate_RMD = rotary.turned(gate_RMD, position_RM) * dim**-0.5
        return gate_RMD.repeat_interleave(group, dim=1).to(queries.query_RQD.dtype)

    def _known_rotary(self) -> Rotary:
        assert self._rotary is not None, "a trained retriever is `fitted` to its model before use"
        return self._rotary
