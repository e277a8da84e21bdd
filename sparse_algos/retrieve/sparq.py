"""SparQ (Ribar et al., ICML 2024, arXiv:2312.04985): scores from the largest query channels.

A second copy of the keys is scored in the few channels where the group's queries are largest; the
softmax of these scores chooses the tokens and says how much of the attention they hold. What they
do not hold goes to the mean value.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.index_data import (
    Estimate,
    Queries,
    Read,
    TensorSpec,
)
from sparse_algos.model_shape import ModelShape
from sparse_algos.units import KeyRetriever


@dataclass(frozen=True, kw_only=True)
class SparQ(KeyRetriever):
    """Algorithm 1 of the paper, its channels and its tokens agreed on by a group of queries.

    channels: r of the paper, the channels of largest sum of |q| over the group; reallocate: whether
    the mean value stands for what is not read.
    """

    channels: int
    reallocate: bool

    shares: ClassVar[bool] = True
    needs_value_mean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.channels", self.channels, least=1)
        if not isinstance(self.reallocate, bool):
            raise ValueError(f"algo.retrieve.reallocate={self.reallocate!r}: give true or false")
        super().__post_init__()

    @property
    def estimates(self) -> bool:
        """See Retriever."""
        return self.reallocate

    def fitted(self, model: ModelShape) -> "SparQ":
        """See Retriever."""
        if self.channels > model.head_dim:
            raise ValueError(
                f"algo.retrieve.channels={self.channels}: the keys of model {model.name} have "
                f"{model.head_dim}; lower it"
            )
        return self

    def summary_spec(self, head_dim: int, dtype: torch.dtype) -> dict[str, TensorSpec]:
        """The key itself, channel by channel."""
        return {"key": TensorSpec((head_dim,), dtype, by_entry=True)}

    def scoring_query(self, queries: Queries) -> Tensor:
        """The queries of each token in its group's channels, 0 elsewhere, over their temperature.

        That is sqrt(D |q_i|_1 / |q|_1), where q_i has the chosen channels alone.
        """
        size_RQD = queries.query_RQD.float().abs()
        size_RMGD = size_RQD.unflatten(1, (queries.position_RM.shape[1], -1))
        chosen_RMI = size_RMGD.sum(dim=2).topk(self.channels, dim=2).indices
        kept_RMD = torch.zeros_like(size_RMGD[:, :, 0]).scatter_(2, chosen_RMI, 1)
        kept_RQD = kept_RMD.unsqueeze(2).expand_as(size_RMGD).flatten(1, 2)
        share_RQ1 = (size_RQD * kept_RQD).sum(2, keepdim=True) / size_RQD.sum(2, keepdim=True)
        # A query of zeros has no channels: all of its scores are 0.
        temperature_RQ1 = (size_RQD.shape[2] * share_RQ1.nan_to_num(nan=1.0)).sqrt()
        return (queries.query_RQD * kept_RQD / temperature_RQ1).to(queries.query_RQD.dtype)

    def estimate(self, read: Read) -> Estimate:
        """The mean value, with the share of the softmax that was not selected."""
        assert read.share_RG is not None and read.value_RD is not None
        share_RG = read.share_RG.clamp(torch.finfo(torch.float32).tiny, 1)
        out_RGD = read.value_RD.unsqueeze(1).expand(-1, share_RG.shape[1], -1)
        return Estimate(out_RGD, read.lse_RG + ((1 - share_RG) / share_RG).log())
