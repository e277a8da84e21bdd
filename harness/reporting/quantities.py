"""The numbers a report shows, by key: where each stands in a record, its unit and its direction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from harness.metric import Direction
from harness.paired_scores import ScoreChange
from harness.record import RunRecord
from harness.reporting.readings import (
    BY_DEFINITION,
    Reading,
    accuracy,
    change_reading,
    reading,
)

Kind = Literal["score", "change", "ratio", "ms", "bytes", "fraction", "rate", "count"]
MOVED, PER_STEP, PEAK = "kv_bytes_moved_", "_per_decode_step", "peak_mem_bytes_"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number of an arm: `name` in its metrics, or where `compared` in its comparison."""

    label: str
    kind: Kind
    direction: Direction | None
    name: str
    compared: bool = False


SHOWN: Mapping[str, Quantity] = {
    "tpot_ratio": Quantity(
        label="TPOT, ratio to dense",
        kind="ratio",
        direction="lower",
        name="tpot_ratio",
        compared=True,
    ),
    "ttft_ratio": Quantity(
        label="TTFT, ratio to dense",
        kind="ratio",
        direction="lower",
        name="ttft_ratio",
        compared=True,
    ),
    "kv_ratio": Quantity(
        label="KV read per step, ratio to dense",
        kind="ratio",
        direction="lower",
        name="kv_read_bytes_per_decode_step_ratio",
        compared=True,
    ),
    "tpot": Quantity(label="TPOT, median", kind="ms", direction="lower", name="median_tpot_ms"),
    "ttft": Quantity(label="TTFT, median", kind="ms", direction="lower", name="median_ttft_ms"),
    "rate": Quantity(
        label="output tokens/s", kind="rate", direction="higher", name="output_throughput"
    ),
    "tokens": Quantity(
        label="tokens per answer", kind="count", direction=None, name="tokens_per_sample"
    ),
    "kv": Quantity(
        label="KV read per decode step",
        kind="bytes",
        direction="lower",
        name="kv_read_bytes_per_decode_step",
    ),
    "hit": Quantity(
        label="hit rate", kind="fraction", direction="higher", name="kv_cache_hit_rate"
    ),
    "sparsity": Quantity(
        label="sparsity achieved", kind="fraction", direction=None, name="achieved_sparsity"
    ),
    "transfer": Quantity(
        label="transfers per decode step",
        kind="ms",
        direction="lower",
        name="kv_transfer_ms_per_decode_step",
    ),
    "exposed": Quantity(
        label="waiting for transfers per decode step",
        kind="ms",
        direction="lower",
        name="kv_transfer_exposed_ms_per_decode_step",
    ),
    "hbm": Quantity(label="HBM peak of KV", kind="bytes", direction="lower", name=f"{PEAK}hbm"),
    "index": Quantity(label="index peak", kind="bytes", direction="lower", name="index_bytes"),
}
ACCURACY = Quantity(label="accuracy", kind="score", direction="higher", name="macro")
CHANGE = Quantity(
    label="accuracy, change against dense",
    kind="change",
    direction="higher",
    name="accuracy_changes",
)
MEMORY = Quantity(
    label="peak of KV in all tiers, index and tables", kind="bytes", direction="lower", name="peaks"
)
QUANTITIES: Mapping[str, Quantity] = {
    "acc": ACCURACY,
    "acc_change": CHANGE,
    **SHOWN,
    "memory": MEMORY,
}


def readings_of(record: RunRecord, name: str, *, simulated: bool) -> dict[str, Reading | None]:
    """Every quantity of one arm of one run, by key."""
    arm = record.arms[name]
    found = {key: _one(record, name, quantity, simulated) for key, quantity in SHOWN.items()}
    change = change_of(record, name)
    return {
        "acc": accuracy(arm),
        "acc_change": None if change is None else change_reading(change),
        **found,
        "memory": _memory(record, name),
    }


def change_of(record: RunRecord, name: str) -> ScoreChange | None:
    """What became of the scores of the baseline, as a mean over tasks."""
    change = record.accuracy_changes.get(name)
    return None if change is None else change.mean


def moved_of(record: RunRecord, name: str, *, simulated: bool) -> dict[str, Reading | None]:
    """KV bytes that a decode step moved, by ordered pair of tiers."""
    metrics = record.arms[name].metrics
    return {
        metric.removeprefix(MOVED).removesuffix(PER_STEP).replace("_to_", "->"): reading(
            metrics[metric], simulated=simulated
        )
        for metric in sorted(metrics)
        if metric.startswith(MOVED) and metric.endswith(PER_STEP)
    }


def scores_of(record: RunRecord, name: str) -> dict[str, Reading | None]:
    """The mean score of each task."""
    return {
        task: reading(one.score) for task, one in sorted(record.arms[name].accuracy.tasks.items())
    }


def _one(record: RunRecord, name: str, quantity: Quantity, simulated: bool) -> Reading | None:
    if not quantity.compared:
        return reading(record.arms[name].metrics.get(quantity.name), simulated=simulated)
    if name == record.baseline:
        return Reading(value=1.0, n=record.workload.n_done, how=BY_DEFINITION)
    metric = record.comparisons.get(name, {}).get(quantity.name)
    return reading(metric, simulated=simulated)


def _memory(record: RunRecord, name: str) -> Reading | None:
    peaks = record.arms[name].peak_bytes
    if not peaks:
        return None
    total = float(sum(peaks.values()))
    return Reading(value=total, n=record.workload.n_done, how="sum of the peaks, counted")
