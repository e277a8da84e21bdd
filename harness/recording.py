"""From what the arms yielded to the record of a run."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, median
from uuid import uuid4

from harness.accuracy import arm_accuracy
from harness.applied import reasons_unapplied
from harness.comparison import compare_to_dense, paired, scored_pairs
from harness.environment import Environment, Measurement
from harness.fidelity import fidelity_metrics, fidelity_part
from harness.metric import Metric
from harness.metrics import arm_metrics, phases_of, tpot_ms, ttft_ms
from harness.outcome import ArmResult, Outcome
from harness.paired_scores import AccuracyChange, ScoreRule, accuracy_change
from harness.record import (
    Arm,
    Budget,
    Cell,
    Config,
    Count,
    PromptTokens,
    RequestTimes,
    Run,
    RunError,
    RunRecord,
    RunStatus,
    Sample,
    System,
    Verdict,
    Workload,
)
from harness.schema import JsonObject
from harness.verdict import reasons_against


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the runner knows once a run is over.

    arms: the baseline first; planned_uids: the requests that each arm was to answer; references:
    right answers by request uid; prompts_sha256: of the texts of prompts, by request uid;
    resumed: requests that earlier processes measured.
    """

    arms: Sequence[ArmResult]
    config: JsonObject
    overrides: Sequence[str]
    argv: Sequence[str]
    started_at: datetime
    ended_at: datetime
    task: str
    planned_uids: Sequence[str]
    seed: int
    protocol: str
    load: JsonObject
    system: System
    env: Environment
    measurement: Measurement
    score_rule: ScoreRule
    references: Mapping[str, Sequence[str]] = field(default_factory=dict)
    prompts_sha256: Mapping[str, str] = field(default_factory=dict)
    status: RunStatus = "ok"
    errors: Sequence[RunError] = ()
    baseline: str = "dense"
    cell: Cell | None = None
    resumed: int = 0


def build_record(facts: RunFacts) -> RunRecord:
    """The record of a run, with its metrics, comparisons and verdict computed."""
    arms = {arm.name: build_arm(arm) for arm in facts.arms}
    assert len(arms) == len(facts.arms), [arm.name for arm in facts.arms]
    comparisons = compare_all(facts)
    reasons = reasons_against(
        metrics={name: arm.metrics for name, arm in arms.items()},
        comparisons=comparisons,
        baseline=facts.baseline,
        num_planned=len(facts.planned_uids),
        status=facts.status,
    )
    reasons += reasons_unapplied(facts.config, {arm.name: arm.effective for arm in facts.arms})
    return RunRecord(
        run=build_run(facts, Verdict(valid=not reasons, reasons=tuple(reasons))),
        cell=facts.cell,
        config=Config(
            resolved=facts.config,
            overrides=tuple(facts.overrides),
            effective={arm.name: arm.effective for arm in facts.arms},
        ),
        workload=build_workload(facts),
        system=build_system(facts),
        env=facts.env,
        measurement=facts.measurement,
        baseline=facts.baseline,
        arms=arms,
        comparisons=comparisons,
        accuracy_changes=change_all(facts),
        samples=build_samples(facts),
        errors=tuple(facts.errors),
    )


def build_run(facts: RunFacts, verdict: Verdict) -> Run:
    """When the run was, how it ended and what that is worth."""
    return Run(
        uid=uuid4().hex,
        status=facts.status,
        verdict=verdict,
        started_at=facts.started_at,
        ended_at=facts.ended_at,
        duration_s=(facts.ended_at - facts.started_at).total_seconds(),
        argv=tuple(facts.argv),
        resumed=facts.resumed,
    )


def build_workload(facts: RunFacts) -> Workload:
    """The requests of a run and how many of them every arm answered."""
    answered = [
        {outcome.uid for outcome in arm.outcomes if outcome.token_times_s} for arm in facts.arms
    ]
    lengths = [outcome.num_prompt_tokens for arm in facts.arms for outcome in arm.outcomes]
    uids = json.dumps(sorted(facts.planned_uids))
    return Workload(
        task=facts.task,
        n_planned=len(facts.planned_uids),
        n_done=len(set.intersection(*answered)) if answered else 0,
        seed=facts.seed,
        sample_ids_sha256=hashlib.sha256(uids.encode()).hexdigest(),
        protocol=facts.protocol,
        load=facts.load,
        prompt_tokens=prompt_tokens(lengths),
    )


def prompt_tokens(lengths: Sequence[int]) -> PromptTokens | None:
    """The spread of prompt lengths; None without prompts."""
    if not lengths:
        return None
    return PromptTokens(least=min(lengths), median=float(median(lengths)), most=max(lengths))


def build_system(facts: RunFacts) -> System:
    """The system, with the sparsity that its budget means for these prompts."""
    lengths = [outcome.num_prompt_tokens for arm in facts.arms for outcome in arm.outcomes]
    requested = requested_sparsity(facts.system.requested_budget, lengths)
    return facts.system.model_copy(update={"requested_sparsity": requested})


def requested_sparsity(budget: Budget, prompt_lengths: Sequence[int]) -> float | None:
    """The mean share of a prompt that the budget leaves unread; None without a budget."""
    if budget.fraction is not None:
        return 1 - budget.fraction
    if budget.tokens is None or not prompt_lengths:
        return None
    return fmean(1 - min(1.0, budget.tokens / length) for length in prompt_lengths)


def compare_all(facts: RunFacts) -> dict[str, dict[str, Metric]]:
    """Every other arm against the baseline; nothing if there is no baseline."""
    dense = [arm for arm in facts.arms if arm.name == facts.baseline]
    others = [arm for arm in facts.arms if arm.name != facts.baseline]
    return {arm.name: compare_to_dense(arm, base) for arm in others for base in dense}


def change_all(facts: RunFacts) -> dict[str, AccuracyChange]:
    """The scores of every other arm against the baseline's, where both have some."""
    dense = [arm for arm in facts.arms if arm.name == facts.baseline]
    others = [arm for arm in facts.arms if arm.name != facts.baseline]
    changes = {
        arm.name: accuracy_change(scored_pairs(paired(arm, base)), facts.score_rule)
        for arm in others
        for base in dense
    }
    return {name: change for name, change in changes.items() if change is not None}


def build_arm(arm: ArmResult) -> Arm:
    """Metrics and scores of one arm, beside the counts."""
    counters: dict[str, dict[str, Count]] = {
        # `asdict` would break a Counter: it rebuilds it from pairs, which it then counts.
        name: {
            **vars(phase),
            "bytes_moved": dict(phase.bytes_moved),
            "transfer_s": dict(phase.transfer_s),
        }
        for name, phase in phases_of(arm.counters).items()
    }
    return Arm(
        metrics={
            **arm_metrics(arm),
            **(fidelity_metrics(arm.probed) if arm.probed else {}),
            **arm.task_metrics,
        },
        accuracy=arm_accuracy(arm),
        counters=counters,
        peak_bytes=arm.peak_bytes,
        page_bytes=arm.page_bytes,
        page_tokens=arm.page_tokens,
        fidelity=fidelity_part(arm.probed) if arm.probed else None,
    )


def build_samples(facts: RunFacts) -> tuple[Sample, ...]:
    """All requests through all arms, with what each answered and how fast."""
    return tuple(build_sample(outcome, facts) for arm in facts.arms for outcome in arm.outcomes)


def build_sample(outcome: Outcome, facts: RunFacts) -> Sample:
    """One request through one arm, beside what was asked and the right answers."""
    references = facts.references.get(outcome.uid)
    return Sample(
        uid=outcome.uid,
        task=outcome.task,
        arm=outcome.arm,
        question=outcome.question,
        answer=outcome.answer,
        references=None if references is None else tuple(references),
        score=outcome.score,
        num_prompt_tokens=outcome.num_prompt_tokens,
        num_output_tokens=outcome.num_output_tokens,
        finish=outcome.finish,
        error=outcome.error,
        ttft_ms=finite(ttft_ms(outcome)),
        tpot_ms=finite(tpot_ms(outcome)),
        prompt_sha256=facts.prompts_sha256.get(outcome.uid),
        kv_read_share=outcome.kv_read_share,
    )


def build_requests(arms: Sequence[ArmResult]) -> tuple[RequestTimes, ...]:
    """When the tokens of all requests through all arms were there, counted from the first start."""
    outcomes = [outcome for arm in arms for outcome in arm.outcomes]
    first_s = min((outcome.started_s for outcome in outcomes), default=0.0)
    return tuple(
        RequestTimes(
            uid=outcome.uid,
            task=outcome.task,
            arm=outcome.arm,
            started_s=outcome.started_s - first_s,
            token_times_s=tuple(time_s - first_s for time_s in outcome.token_times_s),
            finish=outcome.finish,
        )
        for outcome in outcomes
    )


def finite(value: float | None) -> float | None:
    """The value, or None if it is no number; the verdict on the run tells of those."""
    return value if value is not None and math.isfinite(value) else None
