"""The logits of tokens that query heads drew: what is added to them before they are attended."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from backends.attention.base import AttentionKernel, FrameSelection
from backends.corrections import corrections
from memory_tiers.base import bits_in
from memory_tiers.summary_store import SEGMENT, Segments
from sparse_algos.hashed import HashedRetriever
from sparse_algos.selection import Selection


@dataclass(frozen=True)
class Drawn:
    """One draw of the rows of a layer, and what its correction takes.

    selection: of tokens, whose valid columns are the live slots of the pages, in order; live_N:
    int64, see PageSelection; norms: of the centred keys, where they lie; inner_NG: float32,
    products of the queries with the rows' centers; norm_NG: float32, of the queries; corrects:
    whether what was drawn is weighed by how likely that was.
    """

    retrieve: HashedRetriever
    selection: Selection
    live_N: Tensor
    norms: Segments
    inner_NG: Tensor
    norm_NG: Tensor
    corrects: bool = True

    def uncorrected(self) -> "Drawn":
        """The same draw, each token with its true weight."""
        return replace(self, corrects=False)

    def corrected(
        self,
        kernel: AttentionKernel,
        query_NGD: Tensor,
        pool_FPSD: Tensor,
        chosen: FrameSelection,
        first: int,
    ) -> FrameSelection:
        """These frames, which are those of the pages from `first` on, with what is added."""
        before = int(bits_in(self.live_N[:first]).sum())
        if not self.corrects:
            here = slice(before, before + int(bits_in(chosen.live_N).sum()))
            at_V = self._columns()[here]
            bias_GV = self._of_heads(self.selection.bias_RGC, at_V)
            drawn_GV = self._of_heads(self.selection.drawn_RGC, at_V)
            return replace(chosen, bias_GV=bias_GV.masked_fill(drawn_GV, 0))
        product_GV = kernel.products(query_NGD, pool_FPSD, chosen)
        bias_GV = self.bias(product_GV, before)
        return replace(chosen, bias_GV=bias_GV)

    def bias(self, product_GV: Tensor, before: int) -> Tensor:
        """What the logits of V live slots take, `before` of which precede; float32 [G, V]."""
        compiled_GV = corrections(
            self.retrieve.chance,
            self.selection,
            self.norms,
            self.inner_NG,
            self.norm_NG,
            product_GV,
            before,
        )
        return self.bias_plainly(product_GV, before) if compiled_GV is None else compiled_GV

    def bias_plainly(self, product_GV: Tensor, before: int) -> Tensor:
        """The same in torch."""
        at_V = self._columns()[before : before + product_GV.shape[1]]
        columns = self.selection.partitions_RC.shape[1]
        row_V, token_V = at_V // columns, self.selection.partitions_RC.flatten()[at_V]
        segment_V = self.norms.directory_RW[row_V, token_V // SEGMENT].clamp(min=0)
        norm_V = self.norms.pool_NCE[segment_V, token_V % SEGMENT].squeeze(1)
        product_GV = product_GV - self.inner_NG.index_select(0, row_V).T
        size_GV = self.norm_NG.index_select(0, row_V).T * norm_V
        cosine_GV = product_GV / size_GV.clamp(min=torch.finfo(torch.float32).tiny)
        return torch.where(
            self._of_heads(self.selection.drawn_RGC, at_V),
            self.retrieve.sampling_bias(cosine_GV),
            self._of_heads(self.selection.bias_RGC, at_V),
        )

    def _columns(self) -> Tensor:
        """Where the valid columns are among all of them, int64 [V]."""
        assert self.selection.valid_RC is not None
        # One look at the mask, where an index by it takes one for each tensor.
        return self.selection.valid_RC.flatten().nonzero().squeeze(1)

    @staticmethod
    def _of_heads(one_NGC: Tensor | None, at_V: Tensor) -> Tensor:
        """A tensor of the selection at these columns, [G, V]."""
        assert one_NGC is not None
        return one_NGC.transpose(0, 1).flatten(1).index_select(1, at_V)
