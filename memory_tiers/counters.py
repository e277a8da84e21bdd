"""What happened, counted on real tensors, apart for each phase of a request."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

Phase = Literal["prefill", "question", "decode"]
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass
class PhaseCounters:
    """Counts of one phase; a page is of one layer and kv head, and sums run over all of them.

    steps: forward passes; rows: query tokens; pages_read and bytes_read: what attention read,
    a page that several rows of a step select counts for each; slots_wanted: slots that the
    algorithm asked for; slots_context: slots that dense attention would have read;
    pages_wanted, pages_hit: pages asked of the cache manager, and found in the fast tier;
    pages_evicted: pages that left the fast tier; pages_prefetched: loaded before they were asked
    for; pages_mandatory and pages_resident: summed over decode steps, the pages that the step asked
    for and those that the fast tier held at its end (the rest of them is buffering); slots_placed:
    slots of pages given to clusters; slots_padding: those that will hold no token;
    pairs_computed: pairs of a query row and a key that a prefill pattern computed, by query head;
    pairs_causal: those that dense attention would have computed in the same place;
    bytes_moved and transfer_s: by tier pair, such as `cpu->hbm`; exposed_s: seconds of moving that
    a step waited for.
    """

    steps: int = 0
    rows: int = 0
    pages_read: int = 0
    bytes_read: int = 0
    slots_wanted: int = 0
    slots_context: int = 0
    pages_wanted: int = 0
    pages_hit: int = 0
    pages_evicted: int = 0
    pages_prefetched: int = 0
    pages_mandatory: int = 0
    pages_resident: int = 0
    exposed_s: float = 0.0
    slots_placed: int = 0
    slots_padding: int = 0
    pairs_computed: int = 0
    pairs_causal: int = 0
    bytes_moved: Counter[str] = field(default_factory=Counter)
    transfer_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def plus(self, other: "PhaseCounters") -> "PhaseCounters":
        """What both have counted."""
        seconds = defaultdict(float, self.transfer_s)
        for pair, more in other.transfer_s.items():
            seconds[pair] += more
        names = [one.name for one in fields(self) if one.name != "transfer_s"]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return PhaseCounters(**sums, transfer_s=seconds)


@dataclass
class Counters:
    """Counters of the three phases; `current` is the one that is being counted."""

    prefill: PhaseCounters = field(default_factory=PhaseCounters)
    question: PhaseCounters = field(default_factory=PhaseCounters)
    decode: PhaseCounters = field(default_factory=PhaseCounters)
    current: PhaseCounters = field(init=False)

    def __post_init__(self) -> None:
        """Start in the prefill phase."""
        self.current = self.prefill

    @property
    def phase(self) -> Phase:
        """The phase that is being counted."""
        return next(name for name in PHASES if getattr(self, name) is self.current)

    def enter(self, phase: Phase) -> None:
        """Count for this phase from now on."""
        self.current = getattr(self, phase)
