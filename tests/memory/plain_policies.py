"""Eviction policies as their textbooks tell them: one page at a time, plain lists, no tensors."""

from collections import OrderedDict, deque
from dataclasses import dataclass, field


@dataclass
class PlainFifo:
    """First in, first out."""

    num_frames: int
    queue: deque[int] = field(default_factory=deque)

    @property
    def held(self) -> set[int]:
        return set(self.queue)

    def read(self, page: int) -> None:
        if page in self.queue:
            return
        if len(self.queue) == self.num_frames:
            self.queue.popleft()
        self.queue.append(page)


@dataclass
class PlainLfu:
    """Fewest reads since it came in, then the longest unread; counts never age."""

    num_frames: int
    now: int = 0
    uses: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def held(self) -> set[int]:
        return set(self.uses)

    def read(self, page: int) -> None:
        self.now += 1
        if page not in self.uses and len(self.uses) == self.num_frames:
            del self.uses[min(self.uses, key=lambda one: self.uses[one])]
        self.uses[page] = (self.uses.get(page, (0, 0))[0] + 1, self.now)


Pages = OrderedDict[int, None]


@dataclass
class PlainArc:
    """ARC; with `late`, the target moves after the eviction, as where victims are named first."""

    num_frames: int
    late: bool
    target: float = 0.0
    once: Pages = field(default_factory=OrderedDict)
    again: Pages = field(default_factory=OrderedDict)
    were_once: Pages = field(default_factory=OrderedDict)
    were_again: Pages = field(default_factory=OrderedDict)

    @property
    def held(self) -> set[int]:
        return {*self.once, *self.again}

    def read(self, page: int) -> None:
        if page in self.held:
            self.once.pop(page, None)
            self.again.pop(page, None)
            self.again[page] = None
            return
        if not self.late:
            self._adapt(page)
        if len(self.held) == self.num_frames:
            self._replace(page)
        if self.late:
            self._adapt(page)
        self._insert(page)

    def _adapt(self, page: int) -> None:
        sizes = max(len(self.were_once), 1), max(len(self.were_again), 1)
        if page in self.were_once:
            self.target = min(self.target + max(1, sizes[1] / sizes[0]), self.num_frames)
        elif page in self.were_again:
            self.target = max(self.target - max(1, sizes[0] / sizes[1]), 0)

    def _replace(self, page: int) -> None:
        at_target = not self.late and page in self.were_again and len(self.once) == self.target
        from_once = not self.again or (self.once and (len(self.once) > self.target or at_target))
        source, ghosts = (self.once, self.were_once) if from_once else (self.again, self.were_again)
        ghosts[source.popitem(last=False)[0]] = None
        if self.late and len(ghosts) > self.num_frames:
            ghosts.popitem(last=False)

    def _insert(self, page: int) -> None:
        known = page in self.were_once or page in self.were_again
        self.were_once.pop(page, None)
        self.were_again.pop(page, None)
        (self.again if known else self.once)[page] = None
        while len(self.once) + len(self.were_once) > self.num_frames:
            self.were_once.popitem(last=False)
        while len(self.held) + len(self.were_once) + len(self.were_again) > 2 * self.num_frames:
            self.were_again.popitem(last=False)


@dataclass
class PlainS3Fifo:
    """S3-FIFO, with the share of the small queue as a number of frames."""

    num_frames: int
    max_small: int
    small: deque[int] = field(default_factory=deque)
    main: deque[int] = field(default_factory=deque)
    ghosts: deque[int] = field(default_factory=deque)
    reads: dict[int, int] = field(default_factory=dict)

    @property
    def held(self) -> set[int]:
        return set(self.reads)

    def read(self, page: int) -> None:
        if page in self.reads:
            self.reads[page] = min(self.reads[page] + 1, 3)
            return
        while len(self.reads) == self.num_frames:
            self._evict_small() if len(self.small) >= self.max_small else self._evict_main()
        if page in self.ghosts:
            self.ghosts.remove(page)
            self.main.append(page)
        else:
            self.small.append(page)
        self.reads[page] = 0

    def _evict_small(self) -> None:
        page = self.small.popleft()
        if self.reads[page] > 1:
            self.main.append(page)
            self.reads[page] = 0
            return
        del self.reads[page]
        self.ghosts.append(page)
        if len(self.ghosts) > self.num_frames - self.max_small:
            self.ghosts.popleft()

    def _evict_main(self) -> None:
        page = self.main.popleft()
        if self.reads[page] == 0:
            del self.reads[page]
            return
        self.reads[page] -= 1
        self.main.append(page)
