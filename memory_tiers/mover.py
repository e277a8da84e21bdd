"""Carries out moves, at once or in the background, and times how long anybody waited."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter

import torch
from torch import Tensor

from memory_tiers.copies import copy_pages
from memory_tiers.counters import Counters
from memory_tiers.level import Move
from memory_tiers.tiers.base import DamagedPagesError


class Mover:
    """Moves run in the order given; those in the background are settled before anything else.

    damaged: page ids whose content was lost, with the reason, since the last `take_damaged`.
    """

    def __init__(self, counters: Counters) -> None:
        """Nothing is under way."""
        self.counters = counters
        self._worker: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self._damaged: list[tuple[Tensor, str]] = []

    def run(self, moves: Sequence[Move]) -> None:
        """Move now; the step waits, so all of it is exposed."""
        if not moves:
            return
        start = perf_counter()
        self._carry(moves)
        self.counters.current.exposed_s += perf_counter() - start

    def start(self, moves: Sequence[Move]) -> None:
        """Move in the background."""
        assert self._pending is None, "settle first"
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="kvloom-prefetch")
        self._pending = self._worker.submit(self._carry, list(moves))

    def settle(self) -> None:
        """Wait for what runs in the background; the wait is what of it is exposed."""
        if self._pending is None:
            return
        start = perf_counter()
        pending, self._pending = self._pending, None
        pending.result()
        self.counters.current.exposed_s += perf_counter() - start

    def take_damaged(self) -> list[tuple[Tensor, str]]:
        """Pages whose content was lost, and why; told once."""
        found, self._damaged = self._damaged, []
        return found

    def _carry(self, moves: Sequence[Move]) -> None:
        count = self.counters.current
        for move in moves:
            start = perf_counter()
            try:
                copy_pages(
                    move.source.tier, move.from_N, move.target.tier, move.to_N, self.counters
                )
            except DamagedPagesError as error:
                lost_N = move.to_N[torch.isin(move.from_N, error.frames_N.to(move.from_N.device))]
                self._damaged.append((move.target.page_of_F[lost_N], str(error)))
            pair = f"{move.source.name}->{move.target.name}"
            count.transfer_s[pair] += perf_counter() - start
