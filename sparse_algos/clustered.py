"""What a retriever over clusters is: partitions of similar keys, wherever their tokens stand."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sparse_algos.checks import check_count, check_fraction
from sparse_algos.index_data import NOTHING, Estimate, Keys, Read, Summaries
from sparse_algos.retriever import IndexKind, Retriever
from sparse_algos.scores import reduce_group
from sparse_algos.selection import PartitionKind, Selection, Steady, Visible


class Best(NamedTuple):
    """Clusters of each row, best first: the first ones fit its budget, some after them may count.

    estimated_RC: bool, those that are not read but estimated.
    """

    partitions_RC: Tensor
    fits_RC: Tensor
    estimated_RC: Tensor


class Room(NamedTuple):
    """Tokens that each row reads beside its clusters, and how many its clusters may have."""

    steady: Steady
    tokens_R: Tensor


@dataclass(frozen=True, kw_only=True)
class ClusterRetriever(Retriever):
    """Tokens between the sinks and the recents are in clusters, formed once and then kept.

    cluster_tokens: mean tokens of a cluster; rebuild_every: once this many tokens stand between
    the last clusters and the recents, they form clusters of their own. Until then they are read
    like the recents, the newest of them first if they exceed the budget. estimated_share: of a
    row's clusters, how many that are next best after those it reads are estimated; 0 for none.
    """

    cluster_tokens: int
    rebuild_every: int
    estimated_share: float

    kind: ClassVar[PartitionKind] = "cluster"
    index_kind: ClassVar[IndexKind] = "clusters"
    takes_best: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """See Retriever."""
        check_count("algo.retrieve.cluster_tokens", self.cluster_tokens, least=1)
        check_count("algo.retrieve.rebuild_every", self.rebuild_every, least=1)
        check_fraction("algo.retrieve.estimated_share", self.estimated_share)
        if self.pool_heads:
            raise ValueError(
                "algo.retrieve.pool_heads=true: each kv head has clusters of its own; use false"
            )
        super().__post_init__()

    @property
    def estimates(self) -> bool:
        """See Retriever."""
        return self.estimated_share > 0

    @property
    def partition_size(self) -> int:
        """A cluster of one token is the smallest."""
        return 1

    @property
    def typical_partition(self) -> int:
        """See Retriever."""
        return self.cluster_tokens

    @property
    def least_budget(self) -> int:
        """Sinks, recents, and the tokens that wait for a cluster."""
        return self.sinks + self.recents + self.rebuild_every

    def most_partitions(self, num_tokens: int) -> int:
        """See Retriever."""
        return max(1, num_tokens // min(self.cluster_tokens, self.rebuild_every))

    def due(self, stored: int, covered: int) -> range | None:
        """Tokens to form clusters of now; None if too few wait. `covered`: see Clusters."""
        waiting = range(max(covered, self.sinks), stored - self.recents)
        return waiting if len(waiting) >= self.rebuild_every else None

    def num_clusters(self, num_tokens: int) -> int:
        """Clusters of so many tokens, some of which may turn out empty."""
        return max(1, num_tokens // self.cluster_tokens)

    @abstractmethod
    def cluster(self, keys_RTD: Tensor) -> Tensor:
        """The cluster of each token, int64 [R, T], below `num_clusters(T)`; rows are apart."""

    @abstractmethod
    def summarise(
        self, keys_RTD: Tensor, values_RTD: Tensor, labels_RT: Tensor, num_clusters: int
    ) -> Summaries:
        """Summaries of the clusters, [R, P, ...]; those of empty ones are finite."""

    def build(self, keys: Keys) -> Summaries:
        """Clusters are formed of all tokens that wait, see `cluster`."""
        raise NotImplementedError("clusters are formed of tokens, not of partitions")

    def select(
        self, scores_RGP: Tensor, visible: Visible, summaries: Summaries = NOTHING
    ) -> Selection:
        """The best clusters that fit the budget beside sinks and newest tokens, best first."""
        assert visible.clusters is not None, "clusters are chosen by their sizes"
        sizes_RP = visible.clusters.sizes_RP
        steady, room_R = self.room(visible)
        absent_R1P = (sizes_RP == 0).unsqueeze(1)
        scores_RP = reduce_group(scores_RGP.masked_fill(absent_R1P, -torch.inf), self.group_reduce)
        best = self._best(scores_RP, sizes_RP, room_R)
        width = int(best.fits_RC.sum(dim=1).amax())
        fits_RC = best.fits_RC[:, :width]
        partitions_RC = best.partitions_RC[:, :width].masked_fill(~fits_RC, scores_RP.shape[1])
        partitions_RC, order_RC = partitions_RC.sort(dim=1)
        estimated_RC = best.partitions_RC.masked_fill(~best.estimated_RC, -1)
        return Selection(
            partitions_RC,
            fits_RC.gather(1, order_RC),
            steady,
            estimated_RC=estimated_RC if self.estimates else None,
        )

    def estimate(self, read: Read) -> Estimate:
        """Each estimated cluster counts as `size` tokens of its mean key and mean value.

        Its summaries have these names, and its score is the logit of the mean key.
        """
        assert read.selection is not None and read.scores_RGP is not None
        estimated_RC = read.selection.estimated_RC
        assert estimated_RC is not None
        at_RGC = estimated_RC.clamp(min=0).unsqueeze(1).expand(-1, read.scores_RGP.shape[1], -1)
        factor = self.logits_by(read.scale, read.query_RGD.shape[2])
        logits_RGC = read.scores_RGP.gather(2, at_RGC) * factor
        logits_RGC = logits_RGC + read.summaries["size"].mT.log()
        logits_RGC = logits_RGC.masked_fill(estimated_RC.unsqueeze(1) < 0, -torch.inf)
        # Columns of no cluster hold another one's value: finite, under a weight of 0.
        value_RCD = read.summaries["value"].float()
        lse_RG = logits_RGC.logsumexp(dim=2)
        weight_RGC = torch.nan_to_num(logits_RGC.softmax(dim=2))
        return Estimate(weight_RGC @ value_RCD, lse_RG)

    @staticmethod
    def logits_by(scale: float, head_dim: int) -> float:
        """What scores are multiplied with: they have the usual scale, models may have another."""
        return scale * head_dim**0.5

    def room(self, visible: Visible) -> Room:
        """What the budget leaves for clusters beside sinks and newest tokens."""
        assert visible.clusters is not None, "the newest tokens are those that no cluster has"
        allowed_R = self._allowed(visible.num_tokens_R)
        steady = self._steady(visible.num_tokens_R, visible.clusters.covered_R, allowed_R)
        taken_R = steady.sinks_R + visible.num_tokens_R - steady.tail_R
        return Room(steady, allowed_R - taken_R)

    def _best(self, scores_RP: Tensor, sizes_RP: Tensor, room_R: Tensor) -> Best:
        """Clusters in the order of their scores, as many columns as the widest row takes."""
        most = scores_RP.shape[1]
        share_R = (sizes_RP > 0).sum(dim=1).double() * self.estimated_share
        estimated_R1 = share_R.ceil().long().unsqueeze(1)
        more = int(estimated_R1.amax())
        columns = min(most, 1 + 2 * int(room_R.amax()) // self.cluster_tokens + more)
        while True:
            best = scores_RP.topk(columns, dim=1)
            there_RC = best.values > -torch.inf
            taken_RC = sizes_RP.gather(1, best.indices).cumsum(dim=1)
            fits_RC = (taken_RC <= room_R.unsqueeze(1)) & there_RC
            num_R1 = fits_RC.sum(dim=1, keepdim=True)
            if columns == most or int(num_R1.amax()) + more < columns:
                nth_C = torch.arange(columns, device=scores_RP.device)
                next_RC = (nth_C >= num_R1) & (nth_C < num_R1 + estimated_R1)
                return Best(best.indices, fits_RC, next_RC & there_RC)
            # Clusters were smaller than they are on average.
            columns = min(most, 2 * columns)

    def _allowed(self, num_tokens_R: Tensor) -> Tensor:
        if isinstance(self.budget_tokens, int):
            return torch.full_like(num_tokens_R, self.budget_tokens)
        # In float64, as most_tokens counts.
        share_R = (num_tokens_R.double() * self.budget_tokens).ceil().long()
        return share_R.clamp(min=self.least_budget)

    def _steady(self, num_tokens_R: Tensor, covered_R: Tensor, allowed_R: Tensor) -> Steady:
        sinks_R = num_tokens_R.clamp(max=self.sinks)
        newest_R = num_tokens_R - (allowed_R - sinks_R)
        return Steady(sinks_R, torch.maximum(torch.maximum(covered_R, sinks_R), newest_R))
