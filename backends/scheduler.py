"""Which requests run in a step: admission, prompt chunks, and waiting instead of thrashing."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from backends.base import Request
from memory_tiers.manager import CacheManager


@dataclass
class Running:
    """A request that holds a slot, and how far it is; paused: it waits for the fast tier."""

    request: Request
    slot: int
    draws_T: Tensor
    stored: int = 0
    answer: list[int] = field(default_factory=list)
    paused: bool = False
    pages: int = 0

    @property
    def in_prompt(self) -> bool:
        """Whether a part of the prompt is still to be stored."""
        return self.stored < len(self.request.prompt_ids)


@dataclass(frozen=True)
class Piece:
    """Prompt tokens of one sequence that a step stores; question tokens take the sparse path."""

    running: Running
    count: int
    is_question: bool

    @property
    def is_context(self) -> bool:
        """Whether the tokens are of a context that has not ended."""
        return not self.is_question and self.running.request.follows is None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What a step may hold.

    max_batch: requests that run at one time; chunk_tokens: prompt tokens of one step; most_rows:
    question tokens of a sequence of so many tokens, None for no limit; last_chunk: tokens of the
    last chunk of a context at least, unless it has fewer; preempt: whether requests wait while the
    working sets of the others fill the fast tier.
    """

    max_batch: int
    chunk_tokens: int
    most_rows: Callable[[int], int | None] | None
    preempt: bool
    last_chunk: int = 1

    @property
    def reads_whole(self) -> bool:
        """Whether a context is always read in one pass."""
        return self.last_chunk >= self.chunk_tokens


class Scheduler:
    """Gives slots to requests in order, and decides who takes part in the next step.

    A request is admitted while the last tier can hold all that it may store. With `preempt`, it
    also waits until the working sets of those that run, and a chunk of its own, fit the fast tier
    (SparseServe, algorithm 1); and when working sets outgrow the tier, the youngest request pauses.
    One that follows another takes its slot when that is through, and must be submitted before.
    """

    def __init__(
        self, memory: CacheManager, schedule: Schedule, pages_for: Callable[[Request], int]
    ) -> None:
        """Nothing waits, nothing runs; pages_for: pages that a request takes at most."""
        self.running: list[Running] = []
        self.num_preempted = 0
        self._memory = memory
        self._schedule = schedule
        self._waiting: deque[tuple[Request, Tensor]] = deque()
        self._followers: dict[str, tuple[Request, Tensor]] = {}
        self._free_slots = list(range(schedule.max_batch))[::-1]
        self._promised_pages: dict[int, int] = {}
        self._total_pages = memory.free_pages
        self._pages_for = pages_for

    @property
    def busy(self) -> bool:
        """Whether a request is queued or running."""
        return bool(self._waiting or self.running)

    def context_chunks(self, num_tokens: int) -> Iterator[tuple[int, int]]:
        """Chunks [start, stop) of a context that has the steps for itself."""
        start = 0
        while start < num_tokens:
            count = self._context_tokens(num_tokens - start, self._schedule.chunk_tokens)
            yield start, start + count
            start += count

    @property
    def decoding(self) -> list[Running]:
        """Requests that yield a token in the next step."""
        return [one for one in self.running if not one.in_prompt and not one.paused]

    def submit(self, request: Request, draws_T: Tensor) -> None:
        """Queue a request; raises ValueError for one that can never be served."""
        table = self._memory.table
        takes = f"request {request.uid} takes up to {request.most_tokens} tokens"
        if request.most_tokens > table.max_tokens:
            raise ValueError(
                f"{takes}, the page table has room for {table.max_tokens}; lower task.length"
            )
        if (needed := self._pages_for(request)) > self._total_pages:
            last = self._memory.tiers[-1]
            raise ValueError(
                f"{takes} = {needed} pages, tier.{last.name}.size holds {self._total_pages}; "
                "raise it, or lower task.length"
            )
        if request.follows is None:
            self._waiting.append((request, draws_T))
        else:
            self._followers[request.follows] = (request, draws_T)

    def prepare(self) -> None:
        """Admit, pause and resume, before a step."""
        if self._schedule.preempt and self._memory.sharing is not None:
            self._make_way()
        while self._waiting and self._free_slots and self._has_room(self._waiting[0][0]):
            request, draws_T = self._waiting.popleft()
            slot = self._free_slots.pop()
            self._promised_pages[slot] = self._promise(request)
            self._memory.begin(slot)
            self.running.append(Running(request, slot, draws_T))

    def pieces(self) -> list[Piece]:
        """Prompt tokens of the next step, oldest requests first."""
        pieces, left = [], self._schedule.chunk_tokens
        for running in self.running:
            if running.in_prompt and left > 0:
                piece = self._piece(running, left)
                pieces += [piece] if piece.count else []
                left -= piece.count
        return pieces

    def next_on(self, running: Running) -> Running | None:
        """The request that follows one that is through, in its place; None where none does.

        Whoever holds the pages has taken back what is not of the shared context.
        """
        follower = self._followers.pop(running.request.uid, None)
        if follower is None:
            return None
        request, draws_T = follower
        coming = Running(request, running.slot, draws_T, stored=request.num_shared)
        self.running[self.running.index(running)] = coming
        return coming

    def retire(self, running: Running) -> list[str]:
        """The request is through; whoever holds its pages has released them.

        Returns the uids of those that follow it, which can no longer be served.
        """
        self.running.remove(running)
        self._free_slots.append(running.slot)
        del self._promised_pages[running.slot]
        lost = [request.uid for request in self._chain(running.request)[1:]]
        for uid in (running.request.uid, *lost):
            self._followers.pop(uid, None)
        return lost

    def _piece(self, running: Running, most: int) -> Piece:
        request, stored = running.request, running.stored
        if stored < request.num_context and request.follows is None:
            left = request.num_context - stored
            if self._schedule.last_chunk == 1 and stored < request.num_shared:
                left = request.num_shared - stored
            return Piece(running, self._context_tokens(left, most), False)
        if self._schedule.most_rows is not None:
            most = min(most, self._schedule.most_rows(stored) or most)
        is_question = stored >= request.num_context
        stop = len(request.prompt_ids) if is_question else request.num_context
        return Piece(running, min(most, stop - stored), is_question)

    def _chain(self, request: Request) -> list[Request]:
        """A request and those that follow it, in order."""
        chain = [request]
        while chain[-1].uid in self._followers:
            chain.append(self._followers[chain[-1].uid][0])
        return chain

    def _promise(self, request: Request) -> int:
        """Pages that a request, or one of those that follow it, takes at most."""
        return max(map(self._pages_for, self._chain(request)))

    def _context_tokens(self, left: int, most: int) -> int:
        """Tokens of the next chunk, none where too few would be left for the last one."""
        return left if left <= most else max(0, min(most, left - self._schedule.last_chunk))

    def _has_room(self, request: Request) -> bool:
        geometry, sharing = self._memory.geometry, self._memory.sharing
        needed = self._promise(request)
        if sum(self._promised_pages.values()) + needed > self._total_pages:
            return False
        if not self._schedule.preempt or sharing is None or not self.running:
            return True
        chunk = min(self._schedule.chunk_tokens, request.most_tokens)
        chunk_pages = geometry.num_kv_heads * -(-chunk // geometry.page_tokens)
        taken = int(sharing.working_set_B.sum())
        waits = any(one.paused for one in self.running)
        return not waits and taken + chunk_pages <= self._memory.num_fast_frames

    def _make_way(self) -> None:
        """Pause the youngest while working sets do not fit, resume the oldest when they do."""
        sharing, room = self._memory.sharing, self._memory.num_fast_frames
        assert sharing is not None
        sizes = sharing.working_set_B.tolist()
        active = self.decoding
        taken = sum(sizes[one.slot] for one in active)
        while taken > room and len(active) > 1:
            youngest = active.pop()
            youngest.paused, youngest.pages = True, sizes[youngest.slot]
            taken -= youngest.pages
            self.num_preempted += 1
            sharing.pause(youngest.slot, room)
        for one in self.running:
            if one.paused and (taken + one.pages <= room or not (active or self._in_prompt)):
                one.paused = False
                taken += one.pages
                active.append(one)
                sharing.begin(one.slot, room)

    @property
    def _in_prompt(self) -> bool:
        return any(one.in_prompt for one in self.running)
