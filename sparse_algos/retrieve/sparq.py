"""SparQ (Ribar et al., ICML 2024, arXiv:2312.04985): scores from the largest query channels.

A second copy of the keys is scored in the few channels where the group's queries are largest; the
softmax of these scores chooses the tokens and says how much of the attention they hold. What they
do not hold goes to the mean value.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from sparse_algos.checks import check_count
from sparse_algos.model_shape import ModelShape
from sparse_algos.retriever import (
    NOTHING,
    Estimate,
    Keys,
    NewKeys,
    Queries,
    Read,
    Retriever,
    Summaries,
    TensorSpec,
)
from sparse_algos.selection import PartitionKind, Selection, Visible


@dataclass(frozen=True, kw_only=True)
class SparQ(Retriever):
    """Algorithm 1 of the paper, its channels and its tokens agreed on by a group of queries.

    channels: r of the paper, the channels of largest sum of |q| over the group; reallocate: whether
    the mean value stands for what is not read.
    """

    channels: int
    reallocate: bool

    kind: ClassVar[PartitionKind] = "token"
    scored: ClassVar[str | None] = "key"
    takes_best: ClassVar[bool] = False
    needs_value_mean: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.channels", self.channels, least=1)
        if not isinstance(self.reallocate, bool):
            raise ValueError(f"algo.retrieve.reallocate={self.reallocate!r}: give true or false")
        super().__post_init__()

    @property
    def partition_size(self) -> int:
        """One token."""
        return 1

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
        """The key itself."""
        return {"key": TensorSpec((head_dim,), dtype)}

    def build(self, keys: Keys) -> Summaries:
        """See Retriever; a partition has one slot, which is live."""
        return {"key": keys.key_RPSD[:, :, 0]}

    def append(self, old: Summaries, new: NewKeys) -> Summaries:
        """See Retriever."""
        return {"key": new.key_RD}

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

    def select(
        self, scores_RGP: Tensor, visible: Visible, summaries: Summaries = NOTHING
    ) -> Selection:
        """See Retriever; and what share of the softmax of the scores was selected."""
        masks = visible.masks(scores_RGP.shape[2], 1, self.sinks, self.recents)
        uniform = visible.alive_RP is None and visible.shortest == visible.longest
        if not uniform:
            scores_RGP = scores_RGP.masked_fill(masks.absent_RP.unsqueeze(1), -torch.inf)
        # One softmax for both: in a long context it takes a millisecond.
        share_RGP = scores_RGP.softmax(dim=2)
        if self.group_reduce == "mass" and uniform and not self.pool_heads:
            scores_RP = share_RGP.sum(dim=1)
        else:
            scores_RP = self.reduced(scores_RGP, visible)
        selection = self.best(scores_RP.masked_fill_(masks.forced_RP, torch.inf), visible)
        return replace(selection, share_RG=_taken(share_RGP, selection))

    def estimate(self, read: Read) -> Estimate:
        """The mean value, with the share of the softmax that was not selected."""
        share_RG = read.selection.share_RG
        assert share_RG is not None and read.value_RD is not None
        share_RG = share_RG.clamp(torch.finfo(torch.float32).tiny, 1)
        out_RGD = read.value_RD.unsqueeze(1).expand(-1, share_RG.shape[1], -1)
        return Estimate(out_RGD, read.lse_RG + ((1 - share_RG) / share_RG).log())


def _taken(share_RGP: Tensor, selection: Selection) -> Tensor:
    """What the selected tokens have together, [R, G]."""
    token_RC, valid_RC = selection.partitions_RC, selection.valid_RC
    if valid_RC is not None:
        token_RC = token_RC.masked_fill(~valid_RC, 0)
    share_RGC = share_RGP.gather(2, token_RC.unsqueeze(1).expand(-1, share_RGP.shape[1], -1))
    if valid_RC is not None:
        share_RGC = share_RGC.masked_fill(~valid_RC.unsqueeze(1), 0)
    return share_RGC.sum(dim=2).nan_to_num(nan=1.0)
