"""The lines of the table of a record, as text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.metric import Metric
from harness.record import RunRecord
from harness.units import UNKNOWN, binary_bytes, count, digits, duration, percent, ratio

Format = Callable[[float], str]
MOVED_PREFIX = "kv_bytes_moved_"
PER_STEP_SUFFIX = "_per_decode_step"
PEAK_PREFIX = "peak_mem_bytes_"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: a cell for each arm, and one more for each but the baseline."""

    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """Rows that belong together."""

    title: str
    rows: tuple[Row, ...]


def sections(record: RunRecord) -> tuple[Section, ...]:
    """The sections that have something to show, in reading order."""
    rows = {
        "accuracy": accuracy_rows(record),
        "speed, medians": speed_rows(record),
        "KV while decoding": cache_rows(record),
        "fidelity": fidelity_rows(record),
        "KV bytes moved": moved_rows(record),
        "peak memory": memory_rows(record),
    }
    filled = {title: tuple(lines) for title, lines in rows.items()}
    return tuple(Section(title=title, rows=lines) for title, lines in filled.items() if lines)


def arm_names(record: RunRecord) -> list[str]:
    """The baseline, then the others."""
    return sorted(record.arms, key=lambda name: (name != record.baseline, name))


def accuracy_rows(record: RunRecord) -> Iterator[Row]:
    """Each task, the mean over several of them, and answers that held nothing."""
    scored = [arm.accuracy.tasks for arm in record.arms.values()]
    tasks = sorted({task for by_task in scored for task in by_task})
    for task in tasks:
        yield task_row(record, task)
    if len(tasks) > 1:
        yield arms_row(
            record,
            f"mean of {len(tasks)} tasks",
            lambda name: cell(record.arms[name].accuracy.macro, score),
            lambda name: change_cell(compared(record, name, "macro_score_difference")),
        )
    yield from change_rows(record)
    if any(task.num_empty for by_task in scored for task in by_task.values()):
        yield arms_row(record, "empty answers", lambda name: empty_cell(record, name))


def change_rows(record: RunRecord) -> Iterator[Row]:
    """Answers that each arm lost and won against the baseline, and what that says."""
    changes = {name: change.mean for name, change in record.accuracy_changes.items()}
    if not changes:
        return
    flips = {name: f"{one.num_worse} / {one.num_better}" for name, one in changes.items()}
    yield arms_row(record, "worse / better", lambda _: "", lambda name: flips.get(name, ""))
    words = {name: one.verdict.replace("_", "-") for name, one in changes.items()}
    yield arms_row(record, "verdict", lambda _: "", lambda name: words.get(name, ""))


def task_row(record: RunRecord, task: str) -> Row:
    """The score of a task with its interval, and how it changed."""
    scores = {
        name: arm.accuracy.tasks[task].score
        for name, arm in record.arms.items()
        if task in arm.accuracy.tasks
    }
    num_answers = "/".join(map(str, dict.fromkeys(metric.n for metric in scores.values())))
    return arms_row(
        record,
        f"{task} n={num_answers}",
        lambda name: cell(scores.get(name), score),
        lambda name: change_cell(compared(record, name, f"score_difference_{task}")),
    )


def speed_rows(record: RunRecord) -> Iterator[Row]:
    """Latencies, throughput and the length of the answers."""
    yield metric_row(record, "TTFT", "median_ttft_ms", duration, "ttft_ratio")
    if any(is_known(arm.metrics.get("prefill_density")) for arm in record.arms.values()):
        yield metric_row(record, "prefill density", "prefill_density", percent)
    yield metric_row(record, "TPOT", "median_tpot_ms", duration, "tpot_ratio")
    yield metric_row(
        record, "output tokens/s", "output_throughput", digits, "output_throughput_ratio"
    )
    yield metric_row(
        record, "tokens per answer", "tokens_per_sample", digits, "tokens_per_sample_ratio"
    )


def cache_rows(record: RunRecord) -> Iterator[Row]:
    """What attention read, and how well the cache foresaw it."""
    read = "kv_read_bytes_per_decode_step"
    yield metric_row(record, "KV read per step", read, binary_bytes, f"{read}_ratio")
    yield metric_row(record, "hit rate", "kv_cache_hit_rate", percent)
    yield metric_row(record, "buffering:mandatory", "buffering_to_mandatory", digits)
    yield metric_row(record, "read amplification", "read_amplification", digits)
    requested = record.system.requested_sparsity
    if requested is not None:
        yield arms_row(
            record,
            "sparsity requested",
            lambda name: UNKNOWN if name == record.baseline else percent(requested),
        )
    yield metric_row(record, "sparsity achieved", "achieved_sparsity", percent)


def fidelity_rows(record: RunRecord) -> Iterator[Row]:
    """What attention kept of dense attention, where a probe looked."""
    if any(arm.fidelity is not None for arm in record.arms.values()):
        for label, name, worst in (
            ("mass recalled", "mass_recalled", "p10"),
            ("output error", "output_error", "p90"),
        ):
            yield metric_row(record, label, f"mean_{name}", percent)
            yield metric_row(record, f"{label}, {worst}", f"{worst}_{name}", percent)


def moved_rows(record: RunRecord) -> Iterator[Row]:
    """Bytes between each pair of tiers, where any arm moved some."""
    for name in metric_names(record, MOVED_PREFIX):
        values = [arm.metrics[name].value for arm in record.arms.values() if name in arm.metrics]
        if any(values):
            label = name.removeprefix(MOVED_PREFIX).replace("_to_", "->")
            label = label.replace(PER_STEP_SUFFIX, " per step")
            yield metric_row(record, label, name, binary_bytes)
    for label, name in (("transfer", "kv_transfer"), ("not hidden", "kv_transfer_exposed")):
        name = f"{name}_ms_per_decode_step"
        if any(arm.metrics[name].value for arm in record.arms.values() if name in arm.metrics):
            yield metric_row(record, f"{label} per step", name, duration)


def memory_rows(record: RunRecord) -> Iterator[Row]:
    """The most bytes in each tier, of the index and of the evictor."""
    for name in metric_names(record, PEAK_PREFIX):
        tier = name.removeprefix(PEAK_PREFIX)
        yield metric_row(record, tier, name, binary_bytes, f"{name}_ratio")
    yield metric_row(record, "index", "index_bytes", binary_bytes)
    if metric_names(record, "evictor_bytes"):
        yield metric_row(record, "evictor", "evictor_bytes", binary_bytes)
    yield metric_row(record, "page tables", "page_table_bytes", binary_bytes)


def metric_names(record: RunRecord, prefix: str) -> list[str]:
    """The metrics of any arm whose name starts so, in the order of the record."""
    names = dict.fromkeys(name for arm in record.arms.values() for name in arm.metrics)
    return [name for name in names if name.startswith(prefix)]


def metric_row(
    record: RunRecord, label: str, name: str, show: Format, versus: str | None = None
) -> Row:
    """A metric of every arm, and the ratio to the baseline where one is kept."""
    return arms_row(
        record,
        label,
        lambda arm: cell(record.arms[arm].metrics.get(name), show),
        lambda arm: "" if versus is None else ratio_cell(compared(record, arm, versus)),
    )


def arms_row(
    record: RunRecord,
    label: str,
    value: Callable[[str], str],
    versus: Callable[[str], str] = lambda _: "",
) -> Row:
    """A row from the text of a value and of a comparison by the name of an arm."""
    cells: list[str] = []
    for name in arm_names(record):
        cells += [value(name)] if name == record.baseline else [value(name), versus(name)]
    return Row(label=label, cells=tuple(cells))


def compared(record: RunRecord, arm: str, name: str) -> Metric | None:
    """A metric of an arm against the baseline; None if there is none."""
    return record.comparisons.get(arm, {}).get(name)


def is_known(metric: Metric | None) -> bool:
    """Whether it was measured."""
    return metric is not None and metric.value is not None


def cell(metric: Metric | None, show: Format, show_bound: Format | None = None) -> str:
    """A value, with its interval where it has one."""
    if metric is None or metric.value is None:
        return UNKNOWN
    if metric.ci is None:
        return show(metric.value)
    low, high = map(show_bound or show, (metric.ci.lo, metric.ci.hi))
    return f"{show(metric.value)} [{low}, {high}]"


def ratio_cell(metric: Metric | None) -> str:
    """How many times the baseline."""
    return cell(metric, lambda value: f"{ratio(value)}x", ratio)


def change_cell(metric: Metric | None) -> str:
    """The change of a score, always with a sign."""
    return cell(metric, lambda value: f"{value:+.2f}", score)


def empty_cell(record: RunRecord, arm: str) -> str:
    """How many answers of an arm held nothing."""
    return count(sum(task.num_empty for task in record.arms[arm].accuracy.tasks.values()))


def score(value: float) -> str:
    """A score in [0, 1]."""
    return f"{value:.2f}"
