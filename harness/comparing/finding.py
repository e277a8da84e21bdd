"""What a comparison says: one finding for each cell and metric, and the exit code they make."""

from collections.abc import Iterable
from typing import Literal

from pydantic import NonNegativeInt

from harness.schema import Part

FindingClass = Literal[
    "regression",
    "suspicious",
    "improvement",
    "unchanged",
    "non_inferior",
    "inconclusive",
    "insufficient_n",
    "not_comparable",
    "errored",
    "new",
    "removed",
]
# Values of each round, by metric and side, where both sides ran in turns; None: not valid.
Rounds = dict[str, dict[str, tuple[float | None, ...]]]
Kind = Literal["run", "latency", "accuracy", "counter"]

OK, REGRESSION, USAGE, NOTHING, FAILED, INTERRUPTED = 0, 1, 2, 3, 4, 130
# What settles nothing; only a strict comparison minds.
OPEN = frozenset({"inconclusive", "insufficient_n", "suspicious", "removed"})
# Reading order: what needs a person first.
ORDER: tuple[FindingClass, ...] = (
    *("regression", "errored", "not_comparable", "suspicious", "insufficient_n", "inconclusive"),
    *("removed", "new", "improvement", "non_inferior", "unchanged"),
)


class Finding(Part):
    """One metric of one cell. change, lower, upper, margin, detectable: shares, worse is positive.

    For accuracy they are differences of scores, and lower is worse. base, candidate: values;
    gated: whether it counts for the exit code; p: adjusted, of the worsening; n: rounds, requests
    or nothing to count; needed: how many would settle it; detail: the reasons, in words.
    """

    cell: str
    label: str
    metric: str
    kind: Kind
    found: FindingClass
    gated: bool
    unit: str = ""
    base: float | None = None
    candidate: float | None = None
    change: float | None = None
    lower: float | None = None
    upper: float | None = None
    margin: float | None = None
    p: float | None = None
    p_sign_flip: float | None = None
    n: NonNegativeInt = 0
    detectable: float | None = None
    needed: int | None = None
    detail: str = ""


class ComparedSide(Part):
    """One of the two that were compared: as it was named, and the commit behind it."""

    name: str
    sha: str | None = None
    dirty: bool | None = None


class Comparison(Part):
    """Everything that a comparison found, and by which rule."""

    schema_version: Literal[1] = 1
    exit_code: int
    base: ComparedSide
    candidate: ComparedSide
    rule: dict[str, float | int | bool]
    rounds: Rounds
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


def exit_code(findings: Iterable[Finding], *, strict: bool) -> int:
    """1 a regression, 4 something failed, 3 nothing compared or not comparable, 0 otherwise.

    strict: what is left open by a gated metric is not passed over.
    """
    gated = {finding.found for finding in findings if finding.gated}
    if "regression" in gated:
        return REGRESSION
    if "errored" in gated:
        return FAILED
    if not gated or "not_comparable" in gated or (strict and gated & OPEN):
        return NOTHING
    return OK


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By cell, in each what needs a person first."""
    return tuple(
        sorted(findings, key=lambda one: (one.cell, ORDER.index(one.found), not one.gated))
    )
