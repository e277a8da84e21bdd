"""A replay counts what the live run counted, and says what of it is simulated."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backends.replay.cache_sim import PageTrace, simulate, with_content
from backends.replay.replayer import Replayer
from harness.build import build
from harness.studies.replay import replay, with_budget
from memory_tiers.base import OutOfFramesError
from memory_tiers.counters import PHASES, Counters
from memory_tiers.page_table import PageTable
from memory_tiers.partition.identity import Identity
from memory_tiers.policies.lru import Lru
from tests.backends.engines import SLOTS
from tests.harness.cli_runs import SMALL, run
from tests.harness.page_listener import PageListener
from tests.harness.traces import WINDOWED, Live, live_run, shared_trace, sized
from tests.laws.configs import CACHES, HIERARCHIES, options, settings_of

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


def tight(cache: str = "lru", share: float = 0.15, algo: str = "quest", tier: str = "hbm+cpu"):
    """Settings of a fast tier that holds a share of the KV."""
    return sized(settings_of(algo, tier=tier, cache=cache, max_batch=SLOTS), share)


def assert_replay_counts_what_was_counted(live: Live) -> None:
    replayed = replay(live.settings, live.trace)
    for phase in PHASES:
        assert without_seconds(vars(getattr(replayed.counters, phase))) == without_seconds(
            vars(getattr(live.counters, phase))
        ), phase
    count = live.counters.decode
    assert count.pages_evicted > 0
    assert 0 < count.pages_hit < count.pages_wanted


@pytest.mark.parametrize("cache", CACHES)
def test_a_replay_counts_what_the_live_run_counted(cache):
    assert_replay_counts_what_was_counted(live_run(tight(cache)))


@pytest.mark.parametrize("tier", HIERARCHIES)
@pytest.mark.parametrize("budget", options("budget"))
def test_also_on_other_tiers_and_with_budgets(tier, budget):
    settings = with_budget(tight(tier=tier, share=0.2), budget)
    assert_replay_counts_what_was_counted(live_run(settings))


def test_a_replay_pauses_requests_where_the_run_did():
    live = live_run(tight(share=0.11))
    assert live.trace.columns["paused_at_E"].size > 0
    assert live.trace.columns["resumed_at_E"].size > 0
    assert_replay_counts_what_was_counted(live)


def test_a_replay_prefetches_as_the_run_did():
    settings = tight()
    backend = settings.backend.model_copy(update={"prefetch": True})
    live = live_run(settings.model_copy(update={"backend": backend}))
    replayed = replay(live.settings, live.trace)
    assert live.counters.decode.pages_prefetched > 0
    for count in ("pages_prefetched", "pages_hit", "pages_evicted"):
        for phase in PHASES:
            ours, theirs = getattr(replayed.counters, phase), getattr(live.counters, phase)
            assert getattr(ours, count) == getattr(theirs, count)
    # What is under way while the phase changes is counted in either.
    assert all_moved(replayed.counters) == all_moved(live.counters)


@pytest.mark.parametrize(
    ("algo", "family", "dense_layers"),
    [("quest", WINDOWED, 0), ("quest", "qwen3", 1), ("oracle_topk", "llama", 0)],
)
def test_layers_that_read_everything_and_other_mappers_replay_too(algo, family, dense_layers):
    share = 0.15 if algo == "quest" else 0.335
    live = live_run(tight(algo=algo, share=share), family, dense_layers=dense_layers)
    assert_replay_counts_what_was_counted(live)


def all_moved(counters: Counters) -> Counter[str]:
    """Bytes by tier pair, over all phases."""
    return sum((getattr(counters, phase).bytes_moved for phase in PHASES), Counter())


def page_trace_of(num_frames: int) -> PageTrace:
    """The whole trace, prefill and question included, as the manager sees it."""
    trace = shared_trace()
    header = trace.header
    geometry = header.geometry(header.page_tokens, CPU)
    table = PageTable(geometry, header.sequences, header.max_tokens)
    listener = PageListener(geometry, table, num_frames)
    trace.play(Replayer(replace(header, measured_from=0), listener, Identity()))
    return listener.page_trace()


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_without_content_finds_what_the_manager_finds(cache):
    settings = with_budget(tight(cache, 0.12), "none")
    trace = shared_trace()
    whole = replace(trace, header=replace(trace.header, measured_from=0))
    replayed = replay(settings, whole)
    num_frames, count = replayed.frames["hbm"], replayed.counters
    policy = build(settings.cache.policy, "cache.policy")
    counts = simulate(page_trace_of(num_frames), policy, num_frames)
    phases = (count.prefill, count.question, count.decode)
    assert counts.pages_wanted == sum(one.pages_wanted for one in phases)
    assert counts.pages_hit == sum(one.pages_hit for one in phases)
    assert counts.pages_evicted == sum(one.pages_evicted for one in phases) > 0
    assert counts.pages_loaded * replayed.page_bytes == all_moved(count)["cpu->hbm"] > 0


def test_too_few_frames_for_one_access_are_refused():
    access = with_content("read", torch.arange(3))
    with pytest.raises(OutOfFramesError, match="1 too few"):
        simulate(PageTrace((access,), 5), Lru(), 2)


def without_seconds(counts: dict[str, object]) -> dict[str, object]:
    """Counts of one phase that are the same whenever they are counted."""
    return {key: value for key, value in counts.items() if key[-2:] != "_s"}


TRACED = (*SMALL, "trace=on", "load=batch", "backend.max_batch=2", "backend.chunk_tokens=100",
          "tier=hbm+cpu", "tier.hbm.size=0.2", "protocol.ignore_stop=true",
          "task.max_new_tokens=12")  # fmt: skip


def test_from_the_command_line_a_replay_counts_what_the_run_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (record,) = run(TRACED, tmp_path, monkeypatch)
    assert code == 0
    assert {one["num_output_tokens"] for one in record["samples"]} == {12}
    assert any("recorded for a trace" in note for note in record["system"]["notes"])
    trace = next(tmp_path.glob("*/*/*/trace.safetensors"))
    assert f"trace: {trace}" in capsys.readouterr().out
    again = ("backend=replay", f"trace.path={trace}", "tier=hbm+cpu", "tier.hbm.size=0.2",
             "hardware=h100_pcie5", "study.shape=qwen3-14b")  # fmt: skip
    code, _ = run(again, tmp_path, monkeypatch)
    assert code == 0
    shown = capsys.readouterr().out
    found = json.loads(next(tmp_path.glob("*/replay.json")).read_text())
    arm, live = found["arms"]["dynamic"], record["arms"]["quest"]
    for phase in PHASES:
        counted, expected = arm["counters"][phase], live["counters"][phase]
        assert without_seconds(counted) == without_seconds(expected)
    assert arm["peak_bytes"].items() <= live["peak_bytes"].items()
    assert found["step_times"]["dynamic"]["simulated"] is True
    assert found["step_times"]["dynamic"]["serial_ms"] > 0
    assert found["hardware"]["simulated"] is True
    assert shown.count("simulated") >= 3, "of the table, of its column, and below it"
    assert "qwen3-14b" in shown


def test_this_machine_simulates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trace.safetensors"
    shared_trace().save(path)
    code, _ = run(("backend=replay", f"trace.path={path}"), tmp_path, monkeypatch)
    assert code == 0
    found = json.loads(next(tmp_path.glob("*/replay.json")).read_text())
    assert found["step_times"] == {}
    assert "models no step times" in capsys.readouterr().out


REFUSED = {
    ("backend=replay",): ("trace.path is not set", "trace=on"),
    ("backend=replay", "trace.path=README.md"): ("trace.path=README.md", "no whole trace"),
    ("backend=replay", "trace.path=/nowhere"): ("trace.path=/nowhere", "no such file"),
    ("backend=replay", "trace.path=TRACE", "study.shape=gpt"): ("study.shape='gpt'", "qwen3-14b"),
    ("backend=replay", "trace.path=TRACE", "study.budgets=[all]"): ("study.budgets='all'", "none"),
    ("backend=replay", "trace.path=TRACE", "partition=token"): ("partition=token", "blocks"),
    ("backend=replay", "trace.path=TRACE", "tier.hbm.size=64KiB"): ("tier.hbm.size", "raise"),
    ("backend=replay", "trace.path=TRACE", "hardware=h100_pcie5", "hardware.profile.hbm_gb_s=0"): (
        "hardware.profile.hbm_gb_s=0",
        "above 0",
    ),
    ("experiment=hit_ratio", "study.trace=README.md"): ("trace.path=README.md", "no whole trace"),
    ("experiment=hit_ratio", "study.ratios=[2,1]"): ("study.ratios=[2, 1]", "ascending"),
    ("trace=on", "algo=streaming"): ("algo=streaming", "trace=off"),
    ("trace=on", "algo=dense"): ("algo=dense", "trace=off"),
    ("trace=on", "algo=retroinfer"): ("algo=retroinfer", "clusters"),
}


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_what_cannot_be_replayed_is_refused_in_one_line(
    overrides: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "trace.safetensors"
    shared_trace().save(path)
    given = tuple(one.replace("TRACE", str(path)) for one in overrides)
    code, records = run(given, tmp_path / "none", monkeypatch)
    shown = capsys.readouterr()
    assert code == 2
    assert shown.err.startswith("kvloom: ")
    assert shown.err.count("\n") == 1
    for part in REFUSED[overrides]:
        assert part in shown.err
    assert records == []
