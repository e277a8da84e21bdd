"""Was what a config asks for what ran? Read back from the running system, never assumed."""

from collections.abc import Iterator, Mapping
from typing import Any

UNDECIDED = "auto"


def reasons_unapplied(
    config: Mapping[str, Any], effective: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Every setting that an arm did not run with, in words: of the backend, and budgets.

    config: as resolved; effective: what was read back, by arm. What is not in both says nothing.
    """
    backend = config.get("backend") or {}
    reasons = []
    for arm, ran in effective.items():
        for key in ("kernel", "device"):
            asked, got = backend.get(key, UNDECIDED), ran.get(key)
            if asked != UNDECIDED and got is not None and str(got).split(":")[0] != asked:
                reasons.append(f"{arm}: backend.{key}={asked} was asked for, {got} ran")
        most, together = backend.get("max_batch"), ran.get("sequences")
        if most is not None and together is not None and together > most:
            reasons.append(f"{arm}: backend.max_batch={most} was asked for, {together} ran at once")
        reasons += [f"{arm}: {reason}" for reason in _budgets(config.get("algo") or {}, ran)]
    return reasons


def _budgets(algo: Mapping[str, Any], ran: Mapping[str, Any]) -> Iterator[str]:
    """Less than asked is what a short context leaves; more is another algorithm."""
    for role, got in (ran.get("budget_tokens") or {}).items():
        asked = (algo.get(role) or {}).get("budget_tokens")
        if isinstance(asked, int) and got > asked:
            yield f"algo.{role}.budget_tokens={asked} was asked for, {got} ran"
