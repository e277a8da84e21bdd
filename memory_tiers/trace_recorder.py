"""Takes down what a run stores and reads, for a trace."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memory_tiers.counters import PHASES, Phase
from memory_tiers.trace import COLUMNS, Columns
from sparse_algos.selection import Selection


@dataclass
class TraceRecorder:
    """Takes down a run call by call, a chunk of numbers each, on the host."""

    requests: list[str] = field(default_factory=list)
    measured_from: int = 0
    _step: int = 0
    _slots: set[int] = field(default_factory=set)
    _paused: frozenset[int] = frozenset()
    _chunks: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def scheduled(self, uids: Mapping[int, str], paused: frozenset[int]) -> None:
        """Sequences by slot before a step, and those that wait; what is new is taken down."""
        for slot in sorted(paused ^ self._paused):
            self._mark("paused" if slot in paused else "resumed", slot)
        self._paused = paused
        for slot, uid in uids.items():
            if slot not in self._slots:
                self._slots.add(slot)
                self.requests.append(uid)
                self._mark("began", slot)

    def end(self, slot: int) -> None:
        """The sequence in a slot is forgotten."""
        self._slots.discard(slot)
        self._paused -= {slot}
        self._mark("ended", slot)

    def end_step(self) -> None:
        """All layers of a step are through."""
        self._step += 1

    def start_measuring(self) -> None:
        """What came before was the warm-up."""
        self.measured_from = self._step

    def record(
        self,
        phase: Phase,
        layer: int,
        slots: tuple[int, ...],
        stored: tuple[int, ...],
        new: int,
        selection: Selection | None,
    ) -> None:
        """One call, as in `Call`."""
        add = self._add
        add("step_A", self._step)
        add("layer_A", layer)
        add("phase_A", PHASES.index(phase))
        add("new_A", new)
        add("selects_A", selection is not None)
        add("sequences_A1", len(slots))
        self._chunks["slot_X"] += slots
        self._chunks["stored_X"] += stored
        if selection is None:
            add("rows_A1", 0)
            return
        partitions_RC, valid_RC = selection.partitions_RC, selection.valid_RC
        num_rows, columns = partitions_RC.shape
        add("rows_A1", num_rows)
        count_R = torch.full((num_rows,), columns) if valid_RC is None else valid_RC.sum(dim=1)
        flat_N = partitions_RC.flatten() if valid_RC is None else partitions_RC[valid_RC]
        add("partitions_R1", count_R.cpu().numpy().astype(np.int32))
        add("partition_N", flat_N.cpu().numpy().astype(np.int32))

    def columns(self) -> Columns:
        """What was taken down so far, as the columns of a trace."""
        return {name: _column(name, self._chunks[name], dtype) for name, dtype in COLUMNS.items()}

    def _mark(self, what: str, slot: int) -> None:
        self._add(f"{what}_at_E", len(self._chunks["step_A"]))
        self._add(f"{what}_slot_E", slot)

    def _add(self, name: str, value: Any) -> None:
        self._chunks[name].append(value)


def _column(name: str, chunks: list[Any], dtype: type[np.integer[Any]]) -> NDArray[Any]:
    parts = [np.atleast_1d(np.asarray(one, dtype=dtype)) for one in chunks]
    flat = np.concatenate([np.zeros(0, dtype), *parts])
    if name.endswith("1"):
        return np.concatenate(([0], np.cumsum(flat, dtype=np.int64))).astype(dtype)
    return flat
