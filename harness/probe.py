"""Runs some requests once more, off the clock, and compares attention with dense attention."""

from collections.abc import Sequence
from typing import Any, TypeVar

from rich.console import Console

from backends.probe import Probe
from backends.transformers.engine import TransformersBackend
from harness.outcome import ArmResult, Probed
from harness.progress import progress
from harness.settings import ProbeSettings
from harness.trial import run_interleaved
from harness.workload import Workload

Group = TypeVar("Group")


def run_probe(
    settings: ProbeSettings,
    arm: TransformersBackend,
    measured: ArmResult,
    workload: Workload,
    tokenizer: Any,
    *,
    at_once: int,
    console: Console,
) -> Probed:
    """Serve requests again, the probe installed; what the arm counts meanwhile is forgotten."""
    attention, counters = arm.attention, arm.counters
    retrieve = attention.algorithm.retrieve
    probe = Probe(
        attention.memory.table,
        attention.kernel,
        settings.every,
        rebuilt=retrieve is not None and retrieve.rebuilds_keys,
    )
    items = tuple(item for group in spread(workload.groups, settings.requests) for item in group)
    answers = {one.uid: one.answer for one in measured.outcomes}
    differing = []
    arm.reset_counters()
    attention.recorder, attention.probe = None, probe
    try:
        again = run_interleaved(
            {measured.name: arm}, Workload(workload.task, items), tokenizer, at_once=at_once
        )
        with progress(total=len(items), unit="probed", console=console) as advance:
            for outcome in again:
                if outcome.answer != answers.get(outcome.uid):
                    differing.append(outcome.uid)
                advance(f"{measured.name} {outcome.task}")
    finally:
        attention.probe, attention.memory.counters = None, counters
    return Probed(
        every=settings.every,
        uids=tuple(item.source.uid for item in items),
        differing=tuple(differing),
        recalled_NLH=probe.recalled_NLH.numpy(),
        error_NLH=probe.error_NLH.numpy(),
    )


def spread(items: Sequence[Group], count: int) -> tuple[Group, ...]:
    """So many of them, at even distances, the first one included."""
    count = min(count, len(items))
    return tuple(items[place * len(items) // count] for place in range(count))
