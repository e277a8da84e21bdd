"""Carries out moves, at once or in the background, and times how long anybody waited."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter

import torch
from torch import Tensor

from memory_tiers.copies import copy_pages, copy_values
from memory_tiers.counters import Counters
from memory_tiers.level import Level, Move
from memory_tiers.rebuilder import KeyRebuilder
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
        self._rebuilder: KeyRebuilder | None = None
        self._attended: Level | None = None

    def rebuild_keys(self, rebuilder: KeyRebuilder, attended: Level) -> None:
        """From now on, ask which pages move without keys; these return on the level attended."""
        self._rebuilder, self._attended = rebuilder, attended

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
                self._copy(move)
            except DamagedPagesError as error:
                lost_N = torch.isin(move.from_N, error.frames_N.to(move.from_N.device))
                self._damaged.append((move.pages_N[lost_N], str(error)))
            pair = f"{move.source.name}->{move.target.name}"
            count.transfer_s[pair] += perf_counter() - start

    def _copy(self, move: Move) -> None:
        source, target = move.source.tier, move.target.tier
        if self._rebuilder is None:
            copy_pages(source, move.from_N, target, move.to_N, self.counters)
            return
        rebuilt_N = self._rebuilder.is_rebuilt(move.pages_N)
        in_memory = source.pool_FPSD is not None and target.pool_FPSD is not None
        halved_N = rebuilt_N & in_memory
        from_N, to_N = move.from_N, move.to_N
        copy_values(source, from_N[halved_N], target, to_N[halved_N], self.counters)
        try:
            copy_pages(source, from_N[~halved_N], target, to_N[~halved_N], self.counters)
        finally:
            if move.target is self._attended:
                self._rebuilder.refill(move.pages_N[rebuilt_N], to_N[rebuilt_N])
