"""From a result of `vllm bench serve` to the record of a run."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from backends.weights import weights_sha256
from harness.accuracy import SCORE, Accuracy
from harness.asked import ROOT
from harness.environment import environment, measurement
from harness.imported.measured import metrics, ratios
from harness.imported.requests import samples
from harness.imported.result import SOURCE, UNKNOWN, Result, parse, told, unknown
from harness.metric import Metric
from harness.record import (
    Arm,
    BackendInfo,
    Budget,
    Cell,
    Config,
    ModelInfo,
    PromptTokens,
    Run,
    RunRecord,
    System,
    Verdict,
    Workload,
)
from harness.sources import digest_of
from harness.stored.identity import canonical
from harness.verdict import reasons_against_arm, reasons_against_lengths

BASELINE = "dense"
# What the load was, and who bore it; the rest of it stands in no file.
LOAD = ("num_prompts", "request_rate", "burstiness", "max_concurrency", "total_input_tokens")
WHO = ("model_id", "tokenizer_id", "backend")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the file does not say: where it belongs, and what was served; dtype: of the model."""

    experiment: str
    algo: str
    tier: str
    dtype: str


def record_of(content: bytes, dense: bytes | None, origin: Origin) -> RunRecord:
    """The record of one run, beside that of dense vLLM where it is known."""
    result = parse(content)
    results = {} if dense is None else {BASELINE: parse(dense)}
    results[origin.algo] = result
    arms = {name: arm_of(one) for name, one in results.items()}
    comparisons = {
        name: ratios(arm.metrics, arms[BASELINE].metrics)
        for name, arm in arms.items()
        if BASELINE in arms and name != BASELINE
    }
    reasons = tuple(reasons_against(results, arms, comparisons))
    settings = {"source": SOURCE, "algo": origin.algo, "tier": origin.tier, **told(result, WHO)}
    settings |= {"load": told(result, LOAD)}
    sha256 = model_sha256(result.model_id)
    digests = [hashlib.sha256(one).hexdigest() for one in (content, dense or b"")]
    uid = canonical([origin.experiment, settings, *digests])
    return RunRecord(
        run=Run(
            uid=hashlib.sha256(uid).hexdigest()[:32],
            status="ok",
            verdict=Verdict(valid=not reasons, reasons=reasons),
            started_at=result.ended_at - timedelta(seconds=result.duration),
            ended_at=result.ended_at,
            duration_s=result.duration,
            argv=(),
        ),
        cell=Cell(
            experiment=origin.experiment,
            hash=hashlib.sha256(canonical([settings, origin.dtype, sha256])).hexdigest(),
            excluded=(),
            benchmark=digest_of(Path(__file__).parent.glob("*.py")),
            code=UNKNOWN,
        ),
        config=Config(
            resolved=settings,
            overrides=(),
            effective={name: {"others": unknown(one)} for name, one in results.items()},
        ),
        workload=workload(result, min(one.completed for one in results.values())),
        system=system(result, origin, sha256),
        env=environment(),
        measurement=measurement(warmup=0, interleaving="none"),
        baseline=BASELINE,
        arms=arms,
        comparisons=comparisons,
        samples=tuple(one for name, ran in results.items() for one in samples(ran, name)),
        errors=(),
    )


def arm_of(result: Result) -> Arm:
    """The metrics of one result; what a client cannot see stays empty."""
    nothing = SCORE.metric(None, n=0, aggregation="mean over tasks")
    return Arm(
        metrics=metrics(result),
        accuracy=Accuracy(tasks={}, macro=nothing),
        counters={},
        peak_bytes={},
        page_bytes=0,
        page_tokens=0,
    )


def reasons_against(
    results: Mapping[str, Result],
    arms: Mapping[str, Arm],
    comparisons: Mapping[str, Mapping[str, Metric]],
) -> Iterator[str]:
    """Why the numbers may not be used."""
    for name, result in results.items():
        if result.failed:
            yield f"{name}: {result.failed} of {result.num_prompts} requests failed"
        yield from reasons_against_arm(name, arms[name].metrics, result.num_prompts)
    loads = [told(one, (*WHO, *LOAD)) for one in results.values()]
    if loads[0] != loads[-1]:
        differing = sorted(key for key in loads[0] if loads[0][key] != loads[-1][key])
        yield f"the two runs had other loads: {', '.join(differing)}"
    for name, compared in comparisons.items():
        yield from reasons_against_lengths(name, BASELINE, compared["tokens_per_sample_ratio"])


def workload(result: Result, num_done: int) -> Workload:
    """The load; of prompts the file knows the sum."""
    mean = result.total_input_tokens / max(1, result.completed)
    lengths = result.input_lens
    least, most = (min(lengths), max(lengths)) if lengths else (round(mean), round(mean))
    load = told(result, LOAD)
    return Workload(
        task=SOURCE,
        n_planned=result.num_prompts,
        n_done=num_done,
        seed=0,
        sample_ids_sha256=hashlib.sha256(canonical(load)).hexdigest(),
        protocol=UNKNOWN,
        load=load,
        prompt_tokens=PromptTokens(least=least, median=mean, most=most),
    )


def system(result: Result, origin: Origin, sha256: str | None) -> System:
    """What was served, as far as it is known."""
    notes = [
        f"imported from {SOURCE}: the environment is the one of the import",
        "prompt lengths are their mean, the seed is unknown",
    ]
    if result.request_rate != "inf":
        notes.append("rates are over the whole run, and so over its idle time too")
    return System(
        algo=origin.algo,
        tier=origin.tier,
        cache=UNKNOWN,
        partition=UNKNOWN,
        backend=BackendInfo(name=f"vllm ({result.backend})", version=None, kernel=None),
        model=ModelInfo(id=result.model_id, dtype=origin.dtype, parameters=None, sha256=sha256),
        requested_budget=Budget(),
        notes=tuple(notes),
    )


def model_sha256(model_id: str) -> str | None:
    """Of the weights, where they lie here."""
    folders = [folder for folder in (Path(model_id), ROOT / model_id) if folder.is_dir()]
    return weights_sha256(str(folders[0])) if folders else None
