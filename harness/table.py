"""A record as one table for people; it only formats what the record holds."""

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.paired_scores import AccuracyChange
from harness.record import Fidelity, RunRecord
from harness.table_rows import arm_names, sections
from harness.units import count


def render(record: RunRecord, console: Console) -> None:
    """Print the arms of a record side by side, and how they were measured."""
    if not record.run.verdict.valid:
        print_text(console, "NOT VALID as it stands:", "bold red")
        for reason in record.run.verdict.reasons:
            print_text(console, f"- {reason}", "red")
    print_text(console, title(record), "bold")
    console.print(table(record))
    for line in footer(record):
        print_text(console, line, "dim")


def print_text(console: Console, text: str, style: str) -> None:
    """Print text as it is: brackets in it are no markup, numbers in it have no colour."""
    console.print(Text(text, style=style))


def table(record: RunRecord) -> Table:
    """A column for every arm, each but the baseline followed by how it compares."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("", overflow="fold")
    for name in arm_names(record):
        shown.add_column(name, justify="right", overflow="fold")
        if name != record.baseline:
            shown.add_column(f"vs {record.baseline}", justify="right", overflow="fold")
    for section in sections(record):
        shown.add_row(Text(section.title, style="bold"))
        for row in section.rows:
            shown.add_row(*map(Text, (f" {row.label}", *row.cells)))
    return shown


def title(record: RunRecord) -> str:
    """What was compared, on which model, over how many tokens, on which tiers."""
    system, prompts = record.system, record.workload.prompt_tokens
    length = "no prompts" if prompts is None else f"{count(prompts.median)} tokens"
    names = " vs ".join(reversed(arm_names(record)))
    return f"{names} | {system.model.id} | {record.workload.task}, {length} | {system.tier}"


def footer(record: RunRecord) -> Iterator[str]:
    """How the numbers came about, and what a reader must know besides."""
    system, model = record.system, record.system.model
    size = "unknown" if model.parameters is None else count(model.parameters)
    backend = " ".join(part for part in (system.backend.name, system.backend.version) if part)
    yield (
        f"system: {backend}, kernel {system.backend.kernel or 'unknown'}, cache {system.cache}, "
        f"partition {system.partition}, {model.dtype}, {size} parameters"
    )
    yield f"measured: {how_measured(record)}"
    if record.comparisons:
        yield (
            f"[low, high]: 95 % interval; vs {record.baseline}: geometric mean of the ratios per "
            "request for latencies, change for scores"
            f"{''.join(verdict_margin(record))}"
        )
    for name, change in record.accuracy_changes.items():
        yield from how_changed(name, change)
    yield from (f"note: {note}" for note in system.notes)
    for name, arm in record.arms.items():
        if arm.fidelity is not None:
            yield how_probed(name, arm.fidelity)
    yield from (f"error: {error.stage}: {error.kind}: {error.message}" for error in record.errors)


def verdict_margin(record: RunRecord) -> Iterator[str]:
    """The loss that a verdict on scores is about, where there is one."""
    margins = {change.mean.margin for change in record.accuracy_changes.values()}
    yield from (f" (verdict: of a loss above {margin:g})" for margin in margins)


def how_changed(name: str, change: AccuracyChange) -> Iterator[str]:
    """What the verdict on scores leaves open, and the tasks that lost more than it shows."""
    mean = change.mean
    if mean.verdict == "inconclusive":
        enough = "no number" if mean.needed is None else f"about {roughly(mean.needed)}"
        yield (
            f"inconclusive: {name} was scored on {mean.n} requests, {enough} would tell a loss of "
            f"{mean.margin:g} from none"
        )
    lost = {task: one for task, one in change.tasks.items() if one.verdict == "regression"}
    for task, one in lost.items():
        yield (
            f"regression: {name}, {task} {one.change:+.2f}, {one.num_worse} worse, "
            f"{one.num_better} better, p {one.p:.2g} ({one.test})"
        )


def roughly(number: int) -> str:
    """A number to two digits."""
    return count(float(f"{number:.2g}"))


def how_probed(name: str, seen: Fidelity) -> str:
    """What the figures of fidelity stand on."""
    answers = "answered as measured"
    if seen.differing:
        answers = f"NOT answered as measured: {', '.join(seen.differing)}"
    return (
        f"probe: {len(seen.uids)} requests through {name} once more, off the clock, "
        f"{seen.num_steps} comparisons, every {seen.every} decode steps; {answers}"
    )


def how_measured(record: RunRecord) -> str:
    """Requests, threads, turns and warm-up in one line."""
    workload, measurement = record.workload, record.measurement
    resumed = ""
    if record.run.resumed:
        resumed = f"{record.run.resumed} of them by a process that was killed, "
    return (
        f"{workload.n_done} of {workload.n_planned} requests per arm, {resumed}"
        f"{measurement.warmup} warm-up, interleaving: {measurement.interleaving}, "
        f"threads: {measurement.torch_threads}, protocol {workload.protocol}, seed {workload.seed}"
    )
