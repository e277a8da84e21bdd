"""All pages of a row: what dense attention reads."""

import torch
from torch import Tensor

from memory_tiers.base import PageSelection, Rows, count_bits, prefix_bits


def every_page(rows: Rows, page_tokens: int, dead_P: Tensor | None) -> PageSelection:
    """Every page of each row that holds a token in its sight, with exactly these slots live."""
    num_pages = -(-rows.longest // page_tokens)
    start_P = torch.arange(num_pages, device=rows.first_page_R.device) * page_tokens
    prefix = prefix_bits(page_tokens, start_P.device)
    live_RP = prefix[(rows.num_tokens_R.unsqueeze(1) - start_P).clamp(0, page_tokens)]
    if rows.first_token_R is not None:
        past_RP = (rows.first_token_R.unsqueeze(1) - start_P).clamp(0, page_tokens)
        live_RP = live_RP & ~prefix[past_RP]
    pages_RP = rows.first_page_R.unsqueeze(1) + torch.arange(num_pages, device=start_P.device)
    if dead_P is not None:
        live_RP = live_RP & ~dead_P[pages_RP]
    used_RP = live_RP != 0
    live_N = live_RP[used_RP]
    indptr_R1 = torch.nn.functional.pad(used_RP.sum(dim=1).cumsum(0), (1, 0))
    return PageSelection(
        indptr_R1, pages_RP[used_RP], live_N, _wanted(rows, live_N, dead_P, page_tokens)
    )


def _wanted(rows: Rows, live_N: Tensor, dead_P: Tensor | None, page_tokens: int) -> int:
    if dead_P is not None or rows.first_token_R is not None:
        return count_bits(live_N, page_tokens)
    return int(rows.num_tokens_R.sum())
