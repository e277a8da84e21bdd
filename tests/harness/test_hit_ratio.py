"""Hit ratios of policies over a trace: none above the bound, cold starts left out."""

import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from backends.replay.cache_sim import simulate
from backends.replay.decode_pages import decode_trace
from harness.studies.hit_ratio import hit_ratio, policies_of
from harness.studies.hit_ratio_picture import apart
from memory_tiers.partition.identity import Identity
from memory_tiers.policies.lru import Lru
from memory_tiers.trace import Call, TraceHeader
from tests.harness.cli_runs import run
from tests.harness.traces import DECODE_STEPS, shared_trace
from tests.laws.configs import CACHES

CPU = torch.device("cpu")
SHARES = (0.12, 0.2)
ROOT = Path(__file__).parents[2]


def decoding():
    trace = shared_trace()
    geometry = trace.header.geometry(trace.header.page_tokens, CPU)
    return decode_trace(trace, Identity(), geometry)


def test_no_policy_finds_more_than_belady_on_a_recorded_trace():
    pages = decoding()
    for ratio in (0, 0.5, 1, 3):
        num_frames = round(pages.mandatory * (1 + ratio))
        found = {
            name: hit_ratio(pages, policy, num_frames)
            for name, policy in policies_of(pages).items()
        }
        assert set(found) == {"belady", *CACHES}
        assert max(found, key=lambda name: (found[name], name == "belady")) == "belady"
        if ratio == 0:
            assert min(found.values()) < found["belady"]


def test_with_room_for_everything_each_page_is_loaded_once():
    pages = decoding()
    seen: set[int] = set()
    loaded = 0
    for access in pages.pages.accesses:
        ids = access.pages_N.tolist()
        if access.kind == "free":
            seen -= set(ids)
            continue
        fresh = access.fresh_N.tolist()
        loaded += sum(page not in seen and not new for page, new in zip(ids, fresh, strict=True))
        seen |= set(ids)
    counts = simulate(pages.pages, Lru(), pages.pages.num_pages)
    assert counts.pages_loaded == loaded
    assert counts.pages_evicted == 0
    later = pages.pages_wanted - pages.cold_wanted
    assert pages.hit_ratio(loaded) == 1 - (loaded - pages.cold_loaded) / later
    assert 0 < pages.cold_loaded <= loaded
    assert 0.5 < pages.hit_ratio(loaded) < 1


def test_a_first_step_is_cold_whatever_the_policy_and_a_slot_is_not_a_sequence():
    pages = decoding()
    assert pages.steps == len({one[0] for one in decode_rows()})
    first = {}
    wanted = Counter()
    for step, uid, num_pages in decode_rows():
        first.setdefault(uid, step)
        wanted[first[uid] == step] += num_pages
    assert set(first) == {"0", "1", "2", "3", "4"}, "the warm-up is left out"
    assert pages.cold_wanted == wanted[True]
    assert pages.pages_wanted - pages.cold_wanted == wanted[False]
    # The prompt of 16 tokens fills its page, so its first step begins one per head and layer.
    header = shared_trace().header
    assert pages.cold_loaded == pages.cold_wanted - header.num_kv_heads * header.num_layers


def decode_rows() -> list[tuple[int, str, int]]:
    """Step, request and pages of each sequence in each decode call after the warm-up."""
    rows = Rows(shared_trace().header)
    shared_trace().play(rows)
    return rows.found


class Rows:
    """A player that counts the partitions of each sequence."""

    def __init__(self, header: TraceHeader) -> None:
        self.header = header
        self.uids: dict[int, str] = {}
        self.found: list[tuple[int, str, int]] = []

    def begin(self, slot: int, uid: str) -> None:
        self.uids[slot] = uid

    def pause(self, slot: int) -> None: ...

    def resume(self, slot: int) -> None: ...

    def end_step(self, step: int) -> None: ...

    def end(self, slot: int) -> None: ...

    def call(self, call: Call) -> None:
        if call.phase != "decode" or call.step < self.header.measured_from:
            return
        partitions_RC, valid_RC = call.selection.partitions_RC, call.selection.valid_RC
        if valid_RC is None:
            valid_RC = torch.ones_like(partitions_RC, dtype=torch.bool)
        by_sequence = valid_RC.split(self.header.num_kv_heads)
        for slot, valid_KC in zip(call.slots, by_sequence, strict=True):
            self.found.append((call.step, self.uids[slot], int(valid_KC.sum())))


@pytest.mark.parametrize(
    ("wished", "gap"), [([1.0, 1.0, 1.0], 0.5), ([0.0, 0.1, 5.0], 1.0), ([9.9, 10.0], 1.0)]
)
def test_labels_keep_their_order_and_their_distance(wished, gap):
    places = apart(wished, gap, 0.0, 10.0)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))
    assert min(places) >= 0
    assert max(places) <= 10


HIT_RATIO = ("experiment=hit_ratio", "study.ratios=[0,1,8]")


@pytest.mark.parametrize("has_matplotlib", [True, False])
def test_hit_ratios_come_as_table_numbers_and_picture(
    has_matplotlib: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "trace.safetensors"
    shared_trace().save(path)
    if has_matplotlib:
        pytest.importorskip("matplotlib")
    else:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _ = run((*HIT_RATIO, f"study.trace={path}"), tmp_path, monkeypatch)
    assert code == 0
    shown = capsys.readouterr().out
    folder = next(tmp_path.glob("*-hit_ratio-*"))
    found = json.loads((folder / "hit_ratio.json").read_text())
    assert found["simulated"] is True
    assert "simulated" in shown
    assert set(found["hit_ratio"]) == {"belady", *CACHES}
    assert all(name in shown for name in found["hit_ratio"])
    assert found["frames"] == [found["mandatory_pages"] * factor for factor in (1, 2, 9)]
    pictures = {one.name for one in folder.iterdir()} - {"hit_ratio.json"}
    assert pictures == ({"hit_ratio.png", "hit_ratio.svg"} if has_matplotlib else set())
    assert ("pip install" in shown) is not has_matplotlib


def test_without_a_trace_the_study_records_one_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = (*HIT_RATIO, "task.length=512", "task.max_new_tokens=6", f"study.traces={tmp_path}/t")
    recorded_at = []
    for _ in range(2):
        code, _ = run(small, tmp_path / "found", monkeypatch)
        assert code == 0
        (kept,) = (tmp_path / "t").iterdir()
        recorded_at.append(kept.stat().st_mtime_ns)
    assert recorded_at[0] == recorded_at[1]
    assert len(list((tmp_path / "found").iterdir())) == 2
    assert kept.name.startswith("quest-")


def test_a_trace_is_long_enough_to_tell_policies_apart():
    assert decoding().steps >= DECODE_STEPS
