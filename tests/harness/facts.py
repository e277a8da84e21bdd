"""Small runs whose metrics can be computed by hand, for the tests of records."""

from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from harness.environment import Cpu, Environment, Measurement
from harness.outcome import ArmResult, Outcome
from harness.paired_scores import ScoreRule
from harness.record import BackendInfo, Budget, Cell, ModelInfo, System
from harness.recording import RunFacts
from memory_tiers.counters import Counters, PhaseCounters

MIB = 2**20


def outcome(uid: str, *, arm: str = "dense", **changes: Any) -> Outcome:
    """Three tokens: the first after 100 ms, the others 10 and 30 ms later."""
    plain = Outcome(
        uid=uid,
        task="niah_single_1",
        arm=arm,
        answer="4711",
        score=1.0,
        num_prompt_tokens=4096,
        num_output_tokens=3,
        started_s=1.0,
        token_times_s=(1.1, 1.11, 1.14),
        finish="stop",
    )
    return replace(plain, **changes)


def faster(uid: str, *, by: float, **changes: Any) -> Outcome:
    """The same request with every latency divided."""
    times = tuple(1 + after / by for after in (0.1, 0.11, 0.14))
    return outcome(uid, arm="quest", token_times_s=times, **changes)


def dense_arm(**changes: Any) -> ArmResult:
    """Four requests on one tier; 2 MiB read in each of 8 decode steps."""
    plain = ArmResult(
        name="dense",
        outcomes=tuple(outcome(f"r{index}") for index in range(4)),
        counters=Counters(
            decode=PhaseCounters(
                steps=8,
                rows=8,
                pages_read=1000,
                bytes_read=16 * MIB,
                slots_wanted=16000,
                slots_context=16000,
                pages_wanted=1000,
                pages_hit=1000,
            )
        ),
        peak_bytes={"hbm": 4 * MIB, "index": 0},
        page_bytes=4096,
        page_tokens=16,
        effective={"kernel": "cpu", "threads": 1},
    )
    return replace(plain, **changes)


def quest_arm(**changes: Any) -> ArmResult:
    """Twice as fast on two tiers; a quarter of dense's bytes, 3 of 4 pages found in hbm."""
    plain = ArmResult(
        name="quest",
        outcomes=tuple(faster(f"r{index}", by=2) for index in range(4)),
        counters=Counters(
            prefill=PhaseCounters(
                steps=4,
                pages_evicted=5,
                pairs_computed=170,
                pairs_causal=680,
                bytes_moved=Counter({"hbm->cpu": 3 * MIB}),
            ),
            question=PhaseCounters(
                slots_placed=64, slots_padding=24, pairs_computed=30, pairs_causal=120
            ),
            decode=PhaseCounters(
                steps=8,
                rows=8,
                pages_read=300,
                bytes_read=4 * MIB,
                slots_wanted=3200,
                slots_context=16000,
                pages_wanted=400,
                pages_hit=300,
                pages_evicted=2,
                slots_placed=36,
                slots_padding=1,
                pages_mandatory=400,
                pages_resident=1000,
                exposed_s=0.5,
                transfer_s=defaultdict(float, {"cpu->hbm": 0.75, "hbm->cpu": 0.25}),
                bytes_moved=Counter({"cpu->hbm": 2 * MIB, "hbm->cpu": MIB}),
            ),
        ),
        peak_bytes={"hbm": MIB, "cpu": 4 * MIB, "index": 65536, "page_tables": 999},
        page_bytes=4096,
        page_tokens=16,
        effective={"kernel": "cpu", "threads": 1},
    )
    return replace(plain, **changes)


def system() -> System:
    return System(
        algo="quest",
        tier="hbm+cpu",
        cache="lru",
        partition="identity",
        backend=BackendInfo(name="transformers", version="5.17.0", kernel="cpu"),
        model=ModelInfo(id="bundled", dtype="float32", parameters=3_200_000, sha256=None),
        requested_budget=Budget(tokens=1024),
        notes=("hbm is an arena of host memory: no accelerator on this machine",),
    )


def environment_stub() -> Environment:
    return Environment(
        git=None,
        python="3.11.9",
        packages={"torch": "2.13.0"},
        cuda=None,
        cpu=Cpu(model="a cpu", cores_physical=2, cores_logical=2, cores_usable=2, flags=("avx2",)),
        ram_bytes=16 * 2**30,
        gpus=(),
        kernel="Linux 6.1",
        torch_threads=1,
        variables={"OMP_NUM_THREADS": "1"},
        fingerprint="0" * 64,
    )


def cell(digit: str = "0", *, experiment: str = "runs") -> Cell:
    """A cell outside of any sweep; digit: repeated, its hash."""
    return Cell(
        experiment=experiment,
        hash=digit * 64,
        excluded=("results",),
        benchmark="b" * 64,
        code="c" * 64,
    )


def facts(**changes: Any) -> RunFacts:
    """A valid run of both arms."""
    plain = RunFacts(
        arms=(dense_arm(), quest_arm()),
        config={"algo": {"budget_tokens": 1024}},
        overrides=("algo=quest",),
        argv=("harness/run.py", "algo=quest"),
        started_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        ended_at=datetime(2026, 1, 2, 3, 4, 15, tzinfo=UTC),
        task="ruler",
        planned_uids=tuple(f"r{index}" for index in range(4)),
        seed=7,
        protocol="question_sparse",
        load={"name": "single"},
        system=system(),
        env=environment_stub(),
        measurement=Measurement(
            warmup=1,
            interleaving="request",
            torch_threads=1,
            affinity=(0, 1),
            omp_wait_policy="PASSIVE",
        ),
        score_rule=ScoreRule(alpha=0.05, margin=0.01, task_margin=0.02),
        references={"r0": ("4711",)},
        cell=cell(),
    )
    return replace(plain, **changes)
