"""Runs that look like a sweep, made from a seed: for reports, not for conclusions."""

import random
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product

from harness.outcome import ArmResult, Outcome
from harness.record import Budget
from harness.recording import build_record, build_requests
from harness.reporting.gather import Seen
from memory_tiers.counters import Counters, PhaseCounters
from tests.harness.facts import cell, environment_stub, facts, outcome, system

# How much accuracy an algorithm keeps at a budget, and what its selection costs.
ALGOS = {
    "quest": (0.96, 1.05),
    "arkvale": (0.97, 1.12),
    "retroinfer": (0.98, 1.3),
    "shadowkv": (0.95, 1.0),
    "streaming": (0.45, 0.9),
    "snapkv": (0.8, 0.92),
    "infllm": (0.9, 1.08),
    "oracle_topk": (0.99, 1.6),
    "twilight": (0.97, 1.15),
    "sparq": (0.93, 1.35),
}
LENGTHS = (4096, 8192, 16384, 32768)
BUDGETS = (64, 256, 1024, 2048)
TIERS = ("hbm", "hbm+cpu", "hbm+cpu+disk")
CACHES = ("lru", "lfu", "fifo", "arc", "bucketed_lru")
TASKS = ("niah_single_1", "niah_multikey_1", "vt")
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


# Runs that differ in their numbers; more cells repeat these under other names.
NUM_DISTINCT = 120


def sweep(num_cells: int, *, num_trials: int = 1, seed: int = 0) -> list[Seen]:
    """Runs of so many cells, each with so many trials."""
    axes = list(product(LENGTHS, TIERS, BUDGETS, ALGOS))
    random.Random(seed).shuffle(axes)
    distinct = [
        [
            _seen(number, trial, *one, random.Random(f"{seed}/{number}/{trial}"))
            for trial in range(num_trials)
        ]
        for number, one in enumerate(axes[: min(num_cells, NUM_DISTINCT)])
    ]
    return [
        _renamed(one, number)
        for number in range(num_cells)
        for one in distinct[number % len(distinct)]
    ]


def _renamed(one: Seen, number: int) -> Seen:
    """The same numbers as another cell with another cache."""
    record = one.record
    system = record.system.model_copy(
        update={"cache": CACHES[number // NUM_DISTINCT % len(CACHES)]}
    )
    named = cell(experiment="sweep").model_copy(update={"hash": f"{number:016x}" * 4})
    copied = record.model_copy(update={"system": system, "cell": named})
    return replace(one, place=f"sweep/{number:016x}/{record.run.uid[:8]}", record=copied)


def _seen(number, trial, length, tier, budget, algo, rng) -> Seen:
    keeps, costs = ALGOS[algo]
    share = min(1.0, budget / length)
    base_ms = 4 + length / 1500
    slow = {"hbm": 1.0, "hbm+cpu": 1.25, "hbm+cpu+disk": 1.9}[tier]
    tpot_ms = base_ms * (0.25 + 0.75 * share**0.6) * costs * slow * rng.lognormvariate(0, 0.03)
    chance = keeps * (1 - 0.5 * (64 / budget) ** 0.5 * (length / 32768) ** 0.3)
    arms = (
        _arm("dense", tier, length, 1.0, base_ms * slow, 0.99, rng),
        _arm(algo, tier, length, share, tpot_ms, chance, rng),
    )
    about = replace(
        facts(),
        arms=arms,
        system=system().model_copy(
            update={
                "algo": algo,
                "tier": tier,
                "requested_budget": Budget(tokens=budget),
            }
        ),
        env=environment_stub(),
        planned_uids=tuple(one.uid for one in arms[0].outcomes),
        config={
            "task": {"length": length},
            "algo": {"retrieve": {"_target_": f"sparse_algos.retrieve.{algo}.{_class(algo)}"}},
        },
        overrides=(f"algo={algo}", f"tier={tier}", f"task.length={length}"),
        started_at=STARTED + timedelta(minutes=number, hours=trial),
        ended_at=STARTED + timedelta(minutes=number + 1, hours=trial),
    )
    record = build_record(about)
    requests = build_requests(about.arms)
    return Seen(place="", record=record, samples=record.samples, requests=requests)


def _class(algo: str) -> str:
    return {"oracle_topk": "OracleTopK"}.get(algo, algo.capitalize())


def _arm(name, tier, length, share, tpot_ms, chance, rng) -> ArmResult:
    tiers = tier.split("+")
    outcomes = tuple(
        _outcome(f"r{index}", name, TASKS[index % 3], length, tpot_ms, chance, rng)
        for index in range(12)
    )
    read, steps = int(share * length * 6144), 96
    hit = 1.0 if len(tiers) == 1 else min(1.0, 0.55 + 0.4 * (1 - share) * rng.uniform(0.9, 1.0))
    wanted = max(1, read // 4096) * steps
    moved: Counter[str] = Counter()
    for above, below in pairwise(tiers):
        moved[f"{below}->{above}"] = int((1 - hit) * read * steps * (1 if below == "cpu" else 0.3))
        moved[f"{above}->{below}"] = int(0.02 * read * steps)
    exposed_s = 0.0 if len(tiers) == 1 else 0.3 * (1 - hit) * tpot_ms * steps / 1e3
    return ArmResult(
        name=name,
        outcomes=outcomes,
        counters=Counters(
            decode=PhaseCounters(
                steps=steps,
                rows=steps,
                pages_read=wanted,
                bytes_read=read * steps,
                slots_wanted=int(share * 16000),
                slots_context=16000,
                pages_wanted=wanted,
                pages_hit=int(hit * wanted),
                exposed_s=exposed_s,
                transfer_s=defaultdict(float, {"cpu->hbm": 1.4 * exposed_s}),
                bytes_moved=moved,
            )
        ),
        peak_bytes={one: length * 6144 // (1 if one == tiers[-1] else 8) for one in tiers}
        | {"index": 0 if name == "dense" else length * 200},
        page_bytes=4096,
        page_tokens=16,
        effective={"kernel": "cpu"},
    )


def _outcome(uid, arm, task, length, tpot_ms, chance, rng) -> Outcome:
    ttft_s = length / 6000 * rng.lognormvariate(0, 0.05)
    times = [1 + ttft_s]
    for _ in range(8):
        times.append(times[-1] + tpot_ms / 1e3 * rng.lognormvariate(0, 0.12))
    return outcome(
        uid,
        arm=arm,
        task=task,
        score=float(rng.random() < chance),
        num_prompt_tokens=length - 20,
        num_output_tokens=len(times),
        token_times_s=tuple(times),
    )
