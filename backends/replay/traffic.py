"""What each decode step of a replay read and moved, layer by layer: the input of the cost model."""

from collections import Counter
from dataclasses import dataclass, field

from backends.replay.replayer import Memory, Replayer
from memory_tiers.trace import Call


@dataclass(frozen=True, kw_only=True)
class LayerTraffic:
    """Bytes of one layer of one decode step.

    sequences: rows of the batch; read: by attention from the fast tier; moved: by tier pair.
    """

    step: int
    sequences: int
    read: int
    moved: Counter[str]


@dataclass
class TrafficMeter:
    """A player before another: notes what each decode call made the memory count."""

    replayer: Replayer
    memory: Memory
    layers: list[LayerTraffic] = field(default_factory=list)

    def begin(self, slot: int, uid: str) -> None:
        """See Player."""
        self.replayer.begin(slot, uid)

    def pause(self, slot: int) -> None:
        """See Player."""
        self.replayer.pause(slot)

    def resume(self, slot: int) -> None:
        """See Player."""
        self.replayer.resume(slot)

    def call(self, call: Call) -> None:
        """See Player."""
        if call.phase != "decode":
            self.replayer.call(call)
            return
        read, moved = self._counts()
        self.replayer.call(call)
        read_after, moved_after = self._counts()
        traffic = LayerTraffic(
            step=call.step,
            sequences=len(call.slots),
            read=read_after - read,
            moved=moved_after - moved,
        )
        self.layers.append(traffic)

    def end_step(self, step: int) -> None:
        """See Player."""
        self.replayer.end_step(step)

    def end(self, slot: int) -> None:
        """See Player."""
        self.replayer.end(slot)

    def _counts(self) -> tuple[int, Counter[str]]:
        count = self.memory.counters.decode
        return count.bytes_read, Counter(count.bytes_moved)
