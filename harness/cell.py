"""One cell: a system and its dense baseline over one workload, from settings to a record."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

import torch
from rich.console import Console

from backends.attention.select import choose_kernel
from backends.base import Backend, RefusedError
from backends.transformers.loading import load_tokenizer, stop_ids
from harness.budgets import effective_tokens, in_tokens
from harness.build import build, build_algorithm, build_mapper
from harness.embedded import Embedded
from harness.engines import Engines
from harness.environment import environment, measurement
from harness.outcome import ArmResult, Outcome
from harness.paired_scores import ScoreRule
from harness.preflight import preflight
from harness.prepared import Prepared
from harness.probe import run_probe
from harness.progress import progress
from harness.record import Cell, RequestTimes, RunError, RunRecord, RunStatus
from harness.recording import RunFacts, build_record, build_requests
from harness.resume import Counted, Resumed
from harness.settings import Settings
from harness.system import choose_device, describe, tokenizer_path
from harness.system_facts import system_facts
from harness.tracing import recorder_for
from harness.trial import rounds_of, run_round, warm_up
from harness.workload import make_workload, warmup_request


@dataclass(frozen=True)
class Finished:
    """What is kept of a cell."""

    record: RunRecord
    requests: tuple[RequestTimes, ...]


@dataclass
class Progressed:
    """What is there when a run ends, however it ends; nothing is loaded yet."""

    engines: Engines
    arms: dict[str, Backend] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    status: RunStatus = "ok"
    errors: list[RunError] = field(default_factory=list)


def prepare(settings: Settings) -> Prepared:
    """Compose and check; raises ValueError of one line."""
    download = getattr(settings.model, "download", False)
    asked, tokenizer = settings, load_tokenizer(tokenizer_path(settings), download=download)
    info = describe(settings, len(tokenizer))
    settings = in_tokens(settings, info)
    algorithm = build_algorithm(settings).fitted(info.shape)
    recorder = recorder_for(settings, algorithm)
    build_mapper(settings, algorithm)
    build(settings.cache.policy, "cache.policy")
    device = choose_device(settings.backend.device)
    task = build(settings.task, "task").limited_to(info.max_tokens)
    task = task.asking(settings.protocol.num_questions)
    workload = make_workload(
        task,
        tokenizer,
        protocol=settings.protocol.name,
        temperature=settings.protocol.temperature,
        stop_ids=frozenset() if settings.protocol.ignore_stop else stop_ids(info.config),
    )
    plan = preflight(settings, algorithm, info, workload, device)
    _engines(settings).check(settings, algorithm, info, workload)
    kernel = choose_kernel(
        settings.backend.kernel,
        device=device,
        dtype=info.dtype,
        head_dim=info.head_dim,
        page_size=plan.geometry.page_tokens,
    )
    return Prepared(
        asked, settings, algorithm, info, tokenizer, workload, plan, kernel, device, recorder
    )


def run_cell(
    prepared: Prepared,
    config: dict[str, Any],
    overrides: Sequence[str],
    argv: Sequence[str],
    console: Console,
    cell: Cell,
    earlier: Resumed,
) -> Finished:
    """Run every arm, interleaved, and return what is kept, also of a run that broke off.

    earlier: what need not be measured again.
    """
    started_at, started_s = datetime.now(UTC), perf_counter()
    settings, workload = prepared.settings, prepared.workload
    done = Progressed(_engines(settings), outcomes=earlier.outcomes(started_s))
    with _broken_off(done):
        done.engines.start(prepared, done.arms)
        _measure(prepared, done, earlier, console)
    # Before the probe, which takes memory and fetches pages of its own.
    results = [
        _arm_result(name, arm, earlier.counted(name, arm), prepared, done.outcomes)
        for name, arm in done.arms.items()
    ]
    if done.status == "ok" and settings.probe.requests:
        with _broken_off(done):
            results[-1] = _probed(prepared, done.engines, results[-1], console)
    system = system_facts(
        settings, prepared.info, prepared.kernel.name, done.engines.num_parameters, workload.notes
    )
    facts = RunFacts(
        arms=results,
        config=config,
        overrides=overrides,
        argv=argv,
        started_at=started_at,
        # By one monotonic clock: the time of day may jump in between.
        ended_at=started_at + timedelta(seconds=perf_counter() - started_s),
        task=workload.task.name,
        planned_uids=[item.source.uid for item in workload.items],
        seed=getattr(workload.task, "seed", 0),
        protocol=settings.protocol.label,
        load=settings.load.model_dump(mode="json"),
        system=system,
        env=environment(),
        score_rule=ScoreRule(**settings.accuracy.model_dump()),
        measurement=measurement(warmup=1, interleaving=_interleaving(settings)),
        references={item.source.uid: item.source.references for item in workload.items},
        prompts_sha256={item.source.uid: item.prompt_sha256 for item in workload.items},
        status=done.status,
        errors=done.errors,
        cell=cell,
        resumed=earlier.num_requests,
    )
    return Finished(build_record(facts), build_requests(results))


def _engines(settings: Settings) -> Engines:
    engine = settings.backend.engine
    engines: Engines = Embedded() if engine is None else build(engine, "backend.engine")
    return engines


def _measure(prepared: Prepared, done: Progressed, earlier: Resumed, console: Console) -> None:
    arms, workload = done.arms, prepared.workload
    warm_up(
        arms,
        warmup_request(
            workload, prepared.settings.load.warmup_tokens, prepared.info.config.vocab_size
        ),
    )
    if prepared.recorder is not None:
        prepared.recorder.start_measuring()
    rounds = rounds_of(workload.groups, prepared.at_once)
    total = len(workload.items) * len(arms) - len(done.outcomes)
    with progress(total=total, unit="requests", console=console) as advance:
        for number in range(earlier.num_rounds, len(rounds)):
            before = len(done.outcomes)
            for outcome in run_round(
                arms, number, rounds[number], workload.task, prepared.tokenizer
            ):
                _hear(done, outcome)
                advance(f"{outcome.arm} {outcome.task}")
            earlier.add(done.outcomes[before:], arms)


def _hear(done: Progressed, outcome: Outcome) -> None:
    done.outcomes.append(outcome)
    if outcome.error is not None:
        done.status = "failed"
        where = f"request {outcome.uid}, {outcome.arm}"
        done.errors.append(RunError(kind="RequestFailed", stage=where, message=outcome.error))


def _probed(prepared: Prepared, engines: Engines, result: ArmResult, console: Console) -> ArmResult:
    assert engines.probed is not None, "the preflight lets only these be probed"
    probed = run_probe(
        prepared.settings.probe,
        engines.probed,
        result,
        prepared.workload,
        prepared.tokenizer,
        at_once=prepared.at_once,
        console=console,
    )
    return replace(result, probed=probed)


@contextmanager
def _broken_off(done: Progressed) -> Iterator[None]:
    """Keep what was measured when a run ends early, with the reason."""
    try:
        yield
    except RefusedError:
        raise
    except KeyboardInterrupt:
        done.status = "interrupted"
        done.errors.append(RunError(kind="KeyboardInterrupt", stage="run", message="stopped"))
    except (MemoryError, torch.OutOfMemoryError) as error:
        done.status = "oom"
        done.errors.append(_as_error(error))
    except Exception as error:
        done.status = "failed"
        done.errors.append(_as_error(error))


def _as_error(error: BaseException) -> RunError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return RunError(kind=type(error).__name__, stage=f"run, in {last.name}", message=str(error))


def _arm_result(
    name: str, arm: Backend, counted: Counted, prepared: Prepared, outcomes: Sequence[Outcome]
) -> ArmResult:
    geometry = prepared.plan.geometry
    task = prepared.workload.task
    own = tuple(task.settled([outcome for outcome in outcomes if outcome.arm == name]))
    return ArmResult(
        name=name,
        outcomes=own,
        task_metrics=task.metrics(own),
        counters=counted.counters,
        peak_bytes=counted.peak_bytes,
        page_bytes=geometry.page_bytes,
        page_tokens=geometry.page_tokens,
        effective={
            "kernel": prepared.kernel.name,
            "device": str(prepared.device),
            "sequences": prepared.plan.sequences,
            "frames": dict(prepared.plan.frames),
            "budget_tokens": effective_tokens(prepared.algorithms[name], prepared.plan.max_tokens),
            "tier_bytes": {
                tier: count * geometry.page_bytes for tier, count in prepared.plan.frames.items()
            },
            **arm.facts(),
            "preempted": counted.preempted,
        },
    )


def _interleaving(settings: Settings) -> str:
    return "request" if settings.load.name == "single" else "batch"
