"""Which slots stay, from scores: what evictors have in common."""

import torch
from torch import Tensor

from sparse_algos.evictor import Held


def ends(held: Held, sinks: int, recents: int) -> Tensor:
    """The first and last live slots of each row, bool [R, T]; coming tokens are the most recent."""
    nth_RT = held.live_RT.cumsum(dim=1)
    after_RT = nth_RT[:, -1:] - nth_RT
    ends_RT = (nth_RT <= sinks) | (after_RT < recents - held.coming)
    return ends_RT & held.live_RT


def rank(held: Held, scores_RT: Tensor, always_RT: Tensor) -> Tensor:
    """Scores that order slots: dead ones last, those that always stay first, the rest finite."""
    finite_RT = torch.nan_to_num(scores_RT.float(), nan=torch.finfo(torch.float32).min)
    ranked_RT = finite_RT.masked_fill(always_RT, torch.inf)
    return ranked_RT.masked_fill(~held.live_RT, -torch.inf)


def best(ranked_RT: Tensor, room_R: Tensor) -> Tensor:
    """The best slots that are not dead, as many as there is room for; equal: the older one."""
    order_RT = ranked_RT.argsort(dim=1, descending=True, stable=True)
    place_T = torch.arange(ranked_RT.shape[1], device=ranked_RT.device)
    place_RT = torch.empty_like(order_RT).scatter_(1, order_RT, place_T.expand_as(order_RT))
    return (place_RT < room_R.unsqueeze(1)) & (ranked_RT > -torch.inf)


def best_between(held: Held, scores_RT: Tensor, sinks: int, recents: int) -> Tensor:
    """The first and last slots, and the best of the others that there is room for."""
    return best(rank(held, scores_RT, ends(held, sinks, recents)), held.room_R)
