"""A trace is what was selected, and a file that is not one is refused in one line."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from memory_tiers.counters import PHASES
from memory_tiers.trace import Call, Trace
from memory_tiers.trace_recorder import TraceRecorder
from sparse_algos.base import Algorithm
from sparse_algos.retrieve.quest import Quest
from sparse_algos.selection import Selection, Visible
from tests.backends.engines import SLOTS
from tests.harness.traces import BUDGET, live_run, shared_trace
from tests.laws.configs import settings_of

ROWS = st.lists(st.sets(st.integers(0, 70_000), min_size=1, max_size=4), min_size=1, max_size=4)


@dataclass
class Heard:
    """A player that keeps what it hears, in order."""

    said: list[tuple] = field(default_factory=list)

    def begin(self, slot: int, uid: str) -> None:
        self.said.append(("begin", slot, uid))

    def pause(self, slot: int) -> None:
        self.said.append(("pause", slot))

    def resume(self, slot: int) -> None:
        self.said.append(("resume", slot))

    def call(self, call: Call) -> None:
        self.said.append(("call", *call[:-1], lists(call.selection)))

    def end_step(self, step: int) -> None:
        self.said.append(("end_step", step))

    def end(self, slot: int) -> None:
        self.said.append(("end", slot))


def lists(selection: Selection | None) -> list[list[int]] | None:
    """The partitions of each row."""
    if selection is None:
        return None
    if selection.valid_RC is None:
        return selection.partitions_RC.tolist()
    pairs = zip(selection.partitions_RC, selection.valid_RC, strict=True)
    return [row_C[valid_C].tolist() for row_C, valid_C in pairs]


def padded(rows: list[set[int]]) -> Selection:
    """Ragged rows as a retriever hands them over."""
    most = max(map(len, rows))
    partitions_RC = torch.full((len(rows), most), 80_000)
    valid_RC = torch.zeros(len(rows), most, dtype=torch.bool)
    for row, partitions in enumerate(rows):
        partitions_RC[row, : len(partitions)] = torch.tensor(sorted(partitions))
        valid_RC[row, : len(partitions)] = True
    return Selection(partitions_RC, valid_RC)


def play(trace: Trace) -> list[tuple]:
    heard = Heard()
    trace.play(heard)
    return heard.said


@settings(max_examples=30)
@given(
    calls=st.lists(st.tuples(st.sampled_from(PHASES), st.none() | ROWS, st.booleans()), max_size=6)
)
def test_a_trace_plays_what_was_recorded_also_from_its_file(calls, tmp_path_factory):
    recorder, expected = TraceRecorder(), []
    recorder.scheduled({2: "a"}, frozenset())
    recorder.scheduled({2: "a", 0: "b"}, frozenset({2}))
    recorder.scheduled({2: "a", 0: "b"}, frozenset())
    expected += [("pause", 2), ("resume", 2), ("begin", 2, "a"), ("begin", 0, "b")]
    step = 0
    for number, (phase, rows, ends_step) in enumerate(calls):
        call = (phase, number % 3, (2, 0), (number, 70_000), 1 + number)
        recorder.record(*call, None if rows is None else padded(rows))
        phase, layer, slots, stored, new = call
        wanted = None if rows is None else [sorted(one) for one in rows]
        expected.append(("call", step, layer, phase, slots, stored, new, wanted))
        if ends_step or number == len(calls) - 1:
            recorder.end_step()
            expected.append(("end_step", step))
            step += 1
    recorder.end(2)
    expected.append(("end", 2))
    header = replace(shared_trace().header, requests=tuple(recorder.requests))
    trace = Trace(header, recorder.columns())
    if calls:
        assert play(trace) == expected
    path = tmp_path_factory.mktemp("trace") / "one.safetensors"
    trace.save(path)
    loaded = Trace.load(path)
    assert loaded.header == trace.header
    assert play(loaded) == play(trace)


@dataclass(frozen=True, kw_only=True)
class Witnessed(Quest):
    """Quest, which keeps what it selects."""

    takes_best: ClassVar[bool] = False
    selected: list[list[list[int]]] = field(default_factory=list)

    def select(self, scores_RGP: torch.Tensor, visible: Visible, *more: Any) -> Selection:
        selection = super().select(scores_RGP, visible, *more)
        self.selected.append(lists(selection))
        return selection


def test_a_recorded_run_is_what_was_selected():
    quest = Witnessed(
        budget_tokens=BUDGET, block_tokens=16, sinks=4, recents=16, group_reduce="max"
    )
    algorithm = Algorithm(name="quest", evict=None, retrieve=quest)
    live = live_run(settings_of("quest", max_batch=SLOTS), algorithm=algorithm)
    said = play(live.trace)
    recorded = [one[-1] for one in said if one[0] == "call" and one[-1] is not None]
    assert recorded == quest.selected
    assert any(len(row) < 9 for rows in recorded for row in rows), "nothing was left out"
    decode_layers = {one[2] for one in said if one[0] == "call" and one[3] == "decode"}
    assert decode_layers == set(range(live.trace.header.num_layers))


def test_sequences_begin_before_they_store_and_end_after():
    running: dict[int, str] = {}
    uids = []
    for kind, *rest in play(shared_trace()):
        if kind == "begin":
            slot, uid = rest
            assert slot not in running
            running[slot] = uid
            uids.append(uid)
        elif kind == "end":
            del running[rest[0]]
        elif kind == "call":
            assert set(rest[3]) <= set(running)
    assert not running
    assert uids == ["warmup", "0", "1", "2", "3", "4"]
    assert shared_trace().header.measured_from > 0


def test_a_trace_takes_two_bytes_for_a_partition(tmp_path: Path):
    trace = shared_trace()
    trace.save(tmp_path / "one.safetensors")
    assert trace.columns["partition_N"].size > 1000
    size = (tmp_path / "one.safetensors").stat().st_size
    assert size < 2 * trace.columns["partition_N"].size + 30 * trace.num_calls + 60_000


def damaged(good: bytes, how: str) -> bytes:
    middle = len(good) - 1000
    return {
        "empty": b"",
        "text": b"not a trace at all\n" * 10,
        "cut": good[: len(good) // 2],
        "one bit": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "header": good.replace(b"num_kv_heads", b"num_kv_hands"),
        "format": good.replace(b"kvloom-trace-1", b"kvloom-trace-9"),
    }[how]


@pytest.mark.parametrize("how", ["empty", "text", "cut", "one bit", "header", "format"])
def test_a_damaged_file_is_refused_in_one_line(how: str, tmp_path: Path):
    path = tmp_path / "trace.safetensors"
    shared_trace().save(path)
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(ValueError, match=r"^trace\.path=[^\n]*trace=on records one$"):
        Trace.load(path)


def test_a_file_of_tensors_that_is_no_trace_and_no_file_are_refused(tmp_path: Path):
    save_file({"weights": np.zeros(3)}, tmp_path / "model.safetensors")
    for name, reason in (("model.safetensors", "its format is None"), ("nothing", "no such file")):
        with pytest.raises(ValueError, match=reason):
            Trace.load(tmp_path / name)


def test_saving_that_fails_leaves_the_old_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "trace.safetensors"
    shared_trace().save(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("memory_tiers.trace.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        shared_trace().save(path)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["trace.safetensors"]
