"""From log-ratios of rounds to findings: the gated metrics as one family, the others for show."""

import math
from collections.abc import Sequence

import numpy as np

from harness.comparing.counters import Named
from harness.comparing.finding import Finding
from harness.comparing.interleaving import Judged
from harness.comparing.rule import Decision, Rule, decide, rounds_needed, sign_flip_p
from harness.exact_tests import Floats
from harness.metric import Metric
from harness.record import RunRecord

NOT_INTERLEAVED = "not interleaved: what drifted in between looks like a change"
UNCONFIRMED = "fresh rounds did not find it again"


def taken(metrics: dict[str, Metric], names: Sequence[str]) -> Floats:
    """The costs of a run, float64 [M]: a rate becomes its inverse; NaN where there is no value."""
    values = []
    for name in names:
        metric = metrics.get(name)
        value = metric.value if metric is not None and metric.status == "ok" else None
        if metric is None or value is None or value <= 0:
            values.append(math.nan)
        else:
            values.append(1 / value if metric.direction == "higher" else value)
    return np.array(values)


def latency_findings(
    named: Named,
    names: Sequence[str],
    like: RunRecord,
    values: tuple[Floats, Floats],
    judged: Judged,
    rule: Rule,
    detail: str = "",
) -> list[Finding]:
    """One finding a gated metric. values: medians over the rounds of base and candidate, [M].

    like: a record with the units; detail: a reservation about all of them.
    """
    findings = []
    for index, name in enumerate(names):
        finding = _finding(named, name, like, judged.decision, index, rule, len(names))
        logs_N = judged.logs_MN[index]
        remark = UNCONFIRMED if finding.found == "suspicious" and not detail else detail
        base, candidate = (finite(float(side[index])) for side in values)
        flip = sign_flip_p(logs_N, float(judged.decision.margin_M[index]))
        findings.append(
            finding.model_copy(
                update={
                    "base": base,
                    "candidate": candidate,
                    "p_sign_flip": flip,
                    "detail": remark,
                }
            )
        )
    return findings


def shown_findings(
    named: Named,
    names: Sequence[str],
    like: RunRecord,
    values: tuple[Floats, Floats],
    logs_MN: Floats,
    rule: Rule,
) -> list[Finding]:
    """The same for metrics that decide nothing: each a family of its own, never confirmed."""
    findings = []
    for index, name in enumerate(names):
        decision = decide(logs_MN[index : index + 1], rule.margin_M(np.array([math.nan])), rule)
        alone = Judged(decision, logs_MN[index : index + 1], None)
        one = (values[0][index : index + 1], values[1][index : index + 1])
        (finding,) = latency_findings(named, [name], like, one, alone, rule)
        findings.append(finding.model_copy(update={"gated": False}))
    return findings


def doubtful(findings: Sequence[Finding], reason: str) -> list[Finding]:
    """Regressions of latency that cannot be told from drift are no more than suspicious."""
    return [
        one.model_copy(update={"found": "suspicious", "detail": reason})
        if one.kind == "latency" and one.found == "regression"
        else one
        for one in findings
    ]


def finite(value: float) -> float | None:
    """The value, or None where it is no number."""
    return value if math.isfinite(value) else None


def _finding(
    named: Named,
    name: str,
    like: RunRecord,
    decision: Decision,
    index: int,
    rule: Rule,
    family: int,
) -> Finding:
    mean, sd, margin = (
        float(array[index]) for array in (decision.mean_M, decision.sd_M, decision.margin_M)
    )
    found = str(decision.class_M[index])
    n = int(decision.n_M[index])
    open_ = found == "inconclusive"
    return Finding.model_validate(
        {
            "cell": named.cell,
            "label": named.label,
            "metric": name,
            "kind": "latency",
            "found": found,
            "gated": True,
            "unit": unit_of(like, name),
            "change": math.expm1(mean) if n else None,
            "lower": share(decision.lower_M[index]) if n > 1 else None,
            "upper": share(decision.upper_M[index]) if n > 1 else None,
            "margin": math.expm1(margin),
            "p": float(decision.p_M[index]) if found != "insufficient_n" else None,
            "n": n,
            "detectable": share(decision.detectable_M[index]) if n > 1 else None,
            "needed": rounds_needed(mean, sd, margin, rule.alpha / family) if open_ else None,
        }
    )


def share(log_ratio: float) -> float | None:
    """A log-ratio as a share; None where it is beyond all numbers."""
    return math.expm1(log_ratio) if log_ratio < 700 else None


def unit_of(record: RunRecord, name: str) -> str:
    """The unit of a metric, from any arm that has it."""
    units = (arm.metrics[name].unit for arm in record.arms.values() if name in arm.metrics)
    return next(units, "")
