"""The logits of tokens that query heads drew: what is added to them before they are attended."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from backends.attention.base import AttentionKernel, FrameSelection
from memory_tiers.base import PageSelection
from sparse_algos.hashed import HashedRetriever
from sparse_algos.selection import Selection


@dataclass(frozen=True)
class Drawn:
    """One draw of the rows of a layer, by its V tokens in the order of their pages and slots.

    bias_GV: float32, of what was not drawn; drawn_GV: bool; row_V: int64; norm_V: float32, of the
    centred keys; inner_NG: float32, products of the queries with the rows' centers; norm_NG:
    float32, of the queries; slots_N1: int64, how many of these tokens lie before each page;
    corrects: whether what was drawn is weighed by how likely that was.
    """

    retrieve: HashedRetriever
    bias_GV: Tensor
    drawn_GV: Tensor
    row_V: Tensor
    norm_V: Tensor
    inner_NG: Tensor
    norm_NG: Tensor
    slots_N1: Tensor
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
        last = first + len(chosen.frames_N)
        part = slice(int(self.slots_N1[first]), int(self.slots_N1[last]))
        if not self.corrects:
            bias_GV = self.bias_GV[:, part].masked_fill(self.drawn_GV[:, part], 0)
            return replace(chosen, bias_GV=bias_GV)
        product_GV = kernel.products(query_NGD, pool_FPSD, chosen)
        row_V, norm_V = self.row_V[part], self.norm_V[part]
        product_GV = product_GV - self.inner_NG.index_select(0, row_V).T
        size_GV = self.norm_NG.index_select(0, row_V).T * norm_V
        cosine_GV = product_GV / size_GV.clamp(min=torch.finfo(torch.float32).tiny)
        correction_GV = self.retrieve.sampling_bias(cosine_GV)
        bias_GV = torch.where(self.drawn_GV[:, part], correction_GV, self.bias_GV[:, part])
        return replace(chosen, bias_GV=bias_GV)


def drawn_of(
    retrieve: HashedRetriever,
    selection: Selection,
    pages: PageSelection,
    query_NGD: Tensor,
    norm_NC: Tensor,
    center_ND: Tensor,
    page_tokens: int,
) -> Drawn:
    """A draw, from the selection of its rows [N, C], and the norms of the centred keys in it."""
    valid_NC, bias_NGC, drawn_NGC = selection.valid_RC, selection.bias_RGC, selection.drawn_RGC
    assert valid_NC is not None and bias_NGC is not None and drawn_NGC is not None
    # Places in the flat columns: one look at the mask, where an index by it takes one each.
    at_V = valid_NC.flatten().nonzero().squeeze(1)
    query_NGD = query_NGD.float()
    slot_S = torch.arange(page_tokens, device=at_V.device)
    count_N = (pages.live_N.unsqueeze(1) >> slot_S & 1).sum(dim=1)
    return Drawn(
        retrieve=retrieve,
        bias_GV=bias_NGC.transpose(0, 1).flatten(1).index_select(1, at_V),
        drawn_GV=drawn_NGC.transpose(0, 1).flatten(1).index_select(1, at_V),
        row_V=at_V // max(1, valid_NC.shape[1]),
        norm_V=norm_NC.flatten().index_select(0, at_V),
        inner_NG=(query_NGD @ center_ND.unsqueeze(2)).squeeze(2),
        norm_NG=query_NGD.norm(dim=2),
        slots_N1=torch.nn.functional.pad(count_N.cumsum(0), (1, 0)),
    )
