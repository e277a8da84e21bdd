"""Caches of a few pages, driven by a policy under test, by Belady and by a plain LRU."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from memory_tiers.base import NOWHERE, EvictionPolicy

CPU = torch.device("cpu")


@dataclass
class Cache:
    """Pages in the frames of a policy; each page is asked for alone, or together with others."""

    policy: EvictionPolicy
    num_frames: int
    frame_of: dict[int, int] = field(default_factory=dict)
    misses: int = 0

    def __post_init__(self) -> None:
        self.policy.start(self.num_frames, CPU)

    def ask(self, pages: Sequence[int]) -> None:
        """Make distinct pages resident at one time; those that are there are pinned meanwhile."""
        absent = [page for page in pages if page not in self.frame_of]
        self.misses += len(absent)
        short = len(self.frame_of) + len(absent) - self.num_frames
        if short > 0:
            self._evict(short, [self.frame_of[page] for page in pages if page in self.frame_of])
        free = iter(sorted(set(range(self.num_frames)) - set(self.frame_of.values())))
        self.frame_of |= {page: next(free) for page in absent}
        frames_N = torch.tensor([self.frame_of[page] for page in pages])
        self.policy.touch(frames_N, torch.tensor(pages))

    def _evict(self, count: int, pinned: Sequence[int]) -> None:
        pinned_F = torch.zeros(self.num_frames, dtype=torch.bool)
        pinned_F[list(pinned)] = True
        named = self.policy.victims(count, pinned_F)
        assert_victims_are_allowed(named.tolist(), count, set(pinned), set(self.frame_of.values()))
        self.policy.forget(named)
        gone = set(named.tolist())
        self.frame_of = {page: f for page, f in self.frame_of.items() if f not in gone}


def assert_victims_are_allowed(
    victims: list[int], count: int, pinned: set[int], filled: set[int]
) -> None:
    """As many distinct victims as asked, where there are so many, filled and not pinned."""
    assert len(set(victims)) == len(victims), "a victim was named twice"
    assert not pinned & set(victims), "a pinned frame was given up"
    assert set(victims) <= filled, "an empty frame was given up"
    assert len(victims) == min(count, len(filled - pinned)), "too few or too many victims"


def misses_of(policy: EvictionPolicy, trace: Sequence[int], num_frames: int) -> int:
    """Misses of a policy on pages asked for one after the other."""
    return misses_of_steps(policy, [[page] for page in trace], num_frames)


def misses_of_steps(policy: EvictionPolicy, steps: Sequence[Sequence[int]], num_frames: int) -> int:
    """Misses of a policy on pages asked for together, step by step."""
    cache = Cache(policy, num_frames)
    for pages in steps:
        cache.ask(pages)
    return cache.misses


def fewest_misses(steps: Sequence[Sequence[int]], num_frames: int) -> int:
    """Misses of the best of all ways to keep pages from step to step."""
    best = {frozenset[int](): 0}
    for pages in map(frozenset, steps):
        reached: dict[frozenset[int], int] = {}
        for held, misses in best.items():
            room = num_frames - len(pages)
            others = held - pages
            for kept in combinations(others, min(room, len(others))):
                now = pages.union(kept)
                reached[now] = min(misses + len(pages - held), reached.get(now, misses + 99))
        best = reached
    return min(best.values())


def hit_ratio(policy: EvictionPolicy, steps: Sequence[Tensor], num_frames: int) -> float:
    """Share of the pages wanted, step by step, that were there; for longer traces."""
    policy.start(num_frames, CPU)
    frame_P = torch.full((int(torch.cat(tuple(steps)).max()) + 1,), NOWHERE)
    page_F = torch.full((num_frames,), NOWHERE)
    misses = 0
    for pages_N in steps:
        frame_N = frame_P[pages_N]
        absent_N = pages_N[frame_N == NOWHERE]
        pinned_F = torch.zeros(num_frames, dtype=torch.bool)
        pinned_F[frame_N[frame_N != NOWHERE]] = True
        short = absent_N.numel() - int((page_F == NOWHERE).sum())
        gone_N = policy.victims(max(short, 0), pinned_F)
        policy.forget(gone_N)
        frame_P[page_F[gone_N]] = page_F[gone_N] = NOWHERE
        frames_N = (page_F == NOWHERE).nonzero().squeeze(1)[: absent_N.numel()]
        page_F[frames_N], frame_P[absent_N] = absent_N, frames_N
        policy.touch(frame_P[pages_N], pages_N)
        misses += absent_N.numel()
    return 1 - misses / sum(pages_N.numel() for pages_N in steps)


def decode_steps(
    *, layers: int, pages: int, wanted: int, steps: int, persistence: float, seed: int
) -> list[Tensor]:
    """Pages that the layers of a model might read: the best by scores that drift over the steps."""
    generator = torch.Generator().manual_seed(seed)
    liking_LP = torch.randn(layers, pages, generator=generator)
    drift_LP = torch.randn(layers, pages, generator=generator)
    first_L1 = torch.arange(layers).unsqueeze(1) * pages
    touches: list[Tensor] = []
    for _ in range(steps):
        fresh_LP = torch.randn(layers, pages, generator=generator)
        drift_LP = persistence * drift_LP + (1 - persistence**2) ** 0.5 * fresh_LP
        touches += ((liking_LP + drift_LP).topk(wanted).indices + first_L1).unbind(0)
    return touches


def belady_misses(trace: Sequence[int], num_frames: int) -> int:
    """Fewest misses possible: the page whose next use is farthest away goes (Belady, 1966)."""
    held: set[int] = set()
    misses = 0
    for now, page in enumerate(trace):
        if page in held:
            continue
        misses += 1
        if len(held) == num_frames:
            rest = trace[now + 1 :]
            held.remove(max(held, key=lambda one: rest.index(one) if one in rest else len(trace)))
        held.add(page)
    return misses


def plain_lru_misses(trace: Sequence[int], num_frames: int) -> int:
    """Misses of LRU, by an ordered dictionary."""
    held: OrderedDict[int, None] = OrderedDict()
    misses = 0
    for page in trace:
        if page not in held:
            misses += 1
            if len(held) == num_frames:
                held.popitem(last=False)
        held[page] = None
        held.move_to_end(page)
    return misses


def assert_no_better_than_belady(
    policy: EvictionPolicy, trace: Sequence[int], num_frames: int
) -> None:
    """Nobody who cannot see the future misses less often than who can."""
    assert misses_of(policy, trace, num_frames) >= belady_misses(trace, num_frames)


def assert_is_lru(policy: EvictionPolicy, trace: Sequence[int], num_frames: int) -> None:
    """Page by page the same hits as an ordered dictionary."""
    cache = Cache(policy, num_frames)
    for count, page in enumerate(trace, start=1):
        cache.ask([page])
        assert cache.misses == plain_lru_misses(trace[:count], num_frames), f"at access {count}"
