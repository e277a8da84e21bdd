"""Selection traces: what a run stored and read, by partition, so that it can be replayed.

Beside the dimension key: A calls of attention, X sequences flat over calls, E times that something
happened to a sequence.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from memory_tiers.base import KVGeometry
from memory_tiers.counters import PHASES, Phase
from sparse_algos.selection import PartitionKind, Selection

FORMAT = "kvloom-trace-1"
# Partitions are narrowed to uint16 on disk where they fit.
COLUMNS: Mapping[str, type[np.integer[Any]]] = {
    "step_A": np.int32,
    "layer_A": np.uint16,
    "phase_A": np.uint8,
    "new_A": np.int32,
    "selects_A": np.uint8,
    "sequences_A1": np.int32,
    "rows_A1": np.int32,
    "slot_X": np.uint16,
    "stored_X": np.int32,
    "partitions_R1": np.int32,
    "partition_N": np.int32,
    "began_at_E": np.int32,
    "began_slot_E": np.uint16,
    "ended_at_E": np.int32,
    "ended_slot_E": np.uint16,
    "paused_at_E": np.int32,
    "paused_slot_E": np.uint16,
    "resumed_at_E": np.int32,
    "resumed_slot_E": np.uint16,
}
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class TraceHeader:
    """What the numbers of a trace mean.

    sequences, max_tokens: the room that the page table had; measured_from: the first step after
    the warm-up; windows: tokens in sight, by layer, where the model has a sliding window;
    parameters: of the model; requests: uids in the order of their beginning;
    config: the composed config of the run.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    page_tokens: int
    dtype: str
    partition_kind: PartitionKind
    partition_size: int
    sequences: int
    max_tokens: int
    measured_from: int
    windows: Mapping[str, int]
    algorithm: str
    model: str
    parameters: int
    requests: tuple[str, ...]
    config: Mapping[str, Any]

    @property
    def bytes_per_value(self) -> int:
        """Bytes of one number of the KV cache."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype.itemsize

    def geometry(self, page_tokens: int, device: torch.device) -> KVGeometry:
        """The KV cache that the run had, on pages of another size if wished."""
        return KVGeometry(
            num_layers=self.num_layers,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            page_tokens=page_tokens,
            dtype=getattr(torch, self.dtype),
            device=device,
        )


class Call(NamedTuple):
    """One call of attention: `new` tokens were stored for each slot, and then pages were read.

    stored: tokens that each slot held before; selection: partitions of each row (sequence, kv
    head, new token); None where everything in sight was read.
    """

    step: int
    layer: int
    phase: Phase
    slots: tuple[int, ...]
    stored: tuple[int, ...]
    new: int
    selection: Selection | None


class Player(Protocol):
    """Hears a trace in the order in which it happened."""

    def begin(self, slot: int, uid: str) -> None:
        """A sequence takes an empty slot."""

    def pause(self, slot: int) -> None:
        """A sequence waits from the next step on."""

    def resume(self, slot: int) -> None:
        """A sequence that waited goes on."""

    def call(self, call: Call) -> None:
        """A layer stores and reads."""

    def end_step(self, step: int) -> None:
        """All layers of a step are through."""

    def end(self, slot: int) -> None:
        """The sequence in a slot is forgotten."""


@dataclass(frozen=True)
class Trace:
    """A recorded run: columns in CSR form, named as in COLUMNS, and what they mean."""

    header: TraceHeader
    columns: Columns

    @property
    def num_calls(self) -> int:
        """Calls of attention."""
        return len(self.columns["step_A"])

    def play(self, player: Player) -> None:
        """Tell a player everything, in order."""
        began, ended, paused, resumed = map(self._marks, ("began", "ended", "paused", "resumed"))
        uids = iter(self.header.requests)
        step_A = self.columns["step_A"]
        for index in range(self.num_calls + 1):
            if index > 0 and (index == self.num_calls or step_A[index] != step_A[index - 1]):
                player.end_step(int(step_A[index - 1]))
            for slot in ended.get(index, ()):
                player.end(slot)
            for slot in paused.get(index, ()):
                player.pause(slot)
            for slot in resumed.get(index, ()):
                player.resume(slot)
            for slot in began.get(index, ()):
                player.begin(slot, next(uids))
            if index < self.num_calls:
                player.call(self.call(index))

    def call(self, index: int) -> Call:
        """One call, its selection padded to the longest row."""
        columns = self.columns
        first, stop = columns["sequences_A1"][index : index + 2]
        selects = bool(columns["selects_A"][index])
        return Call(
            step=int(columns["step_A"][index]),
            layer=int(columns["layer_A"][index]),
            phase=PHASES[columns["phase_A"][index]],
            slots=tuple(columns["slot_X"][first:stop].tolist()),
            stored=tuple(columns["stored_X"][first:stop].tolist()),
            new=int(columns["new_A"][index]),
            selection=self._selection(index) if selects else None,
        )

    def save(self, path: Path) -> None:
        """Write one file, whole or not at all."""
        columns = dict(self.columns)
        if columns["partition_N"].max(initial=0) < 2**16:
            columns["partition_N"] = columns["partition_N"].astype(np.uint16)
        metadata = {
            "format": FORMAT,
            "header": json.dumps(asdict(self.header)),
            "sha256": _digest(columns),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
        try:
            with temporary.open("xb") as file:
                file.write(save(columns, metadata))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Read a file that `save` wrote; raises ValueError of one line when it is anything else."""
        try:
            header, columns = _read(path)
        except FileNotFoundError:
            raise ValueError(f"trace.path={path}: no such file; trace=on records one") from None
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"trace.path={path} is no whole trace ({reason}); trace=on records one"
            ) from None
        return cls(header, columns)

    def _selection(self, index: int) -> Selection:
        first, stop = self.columns["rows_A1"][index : index + 2]
        indptr_R1 = self.columns["partitions_R1"][first : stop + 1].astype(np.int64)
        flat_N = torch.from_numpy(
            self.columns["partition_N"][indptr_R1[0] : indptr_R1[-1]].astype(np.int64)
        )
        count_R = torch.from_numpy(np.diff(indptr_R1))
        most = int(count_R.max())
        if bool((count_R == most).all()):
            return Selection(flat_N.view(-1, most), None)
        valid_RC = torch.arange(most) < count_R.unsqueeze(1)
        partitions_RC = torch.full(valid_RC.shape, int(flat_N.max()) + 1)
        partitions_RC[valid_RC] = flat_N
        return Selection(partitions_RC, valid_RC)

    def _marks(self, what: str) -> dict[int, list[int]]:
        """Slots to which something happened, by the call before which it did."""
        marks: dict[int, list[int]] = {}
        at_E, slot_E = (self.columns[f"{what}_{part}_E"].tolist() for part in ("at", "slot"))
        for at, slot in zip(at_E, slot_E, strict=True):
            marks.setdefault(at, []).append(slot)
        return marks


def _read(path: Path) -> tuple[TraceHeader, Columns]:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
        columns = {name: file.get_tensor(name) for name in COLUMNS}
    if _digest(columns) != metadata["sha256"]:
        raise ValueError("its numbers do not match their SHA-256")
    fields = json.loads(metadata["header"])
    fields["requests"] = tuple(fields["requests"])
    header = TraceHeader(**fields)
    columns["partition_N"] = columns["partition_N"].astype(np.int32)
    return header, columns


def _digest(columns: Columns) -> str:
    digest = hashlib.sha256()
    for name in COLUMNS:
        digest.update(np.ascontiguousarray(columns[name]).data)
    return digest.hexdigest()
