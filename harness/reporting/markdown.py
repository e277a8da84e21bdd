"""The report as Markdown: verdicts, what is on the front, and every cell in one table."""

from collections.abc import Iterator, Sequence

from harness.reporting.cells import CellShown
from harness.reporting.front import Point, cost_of, front_of, groups_of, label_of, points_of
from harness.reporting.gather import Gathered
from harness.reporting.quantities import QUANTITIES, Kind
from harness.reporting.readings import Reading
from harness.units import UNKNOWN, binary_bytes, digits, duration, percent, ratio

MOST_ROWS = 200
FORMATS = {
    "score": percent,
    "change": lambda value: f"{'+' * (value > 0)}{percent(value)}",
    "fraction": percent,
    "ratio": ratio,
    "ms": duration,
    "bytes": binary_bytes,
}
COLUMNS = ("acc", "acc_change", "tpot_ratio", "tpot", "kv", "hit", "hbm")
SPECIAL = str.maketrans(
    {char: f"\\{char}" for char in "\\`*_{}[]|#"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
)


def markdown(gathered: Gathered, cells: Sequence[CellShown], pictures: Sequence[str]) -> str:
    """The whole file."""
    return "\n".join(
        [
            "# KVLoom report\n",
            summary(gathered, cells),
            *problems(gathered, cells),
            *fronts(cells),
            *(f"![{name.rpartition('.')[0]}](figures/{name})" for name in pictures),
            "",
            *table(cells),
            "",
        ]
    )


def summary(gathered: Gathered, cells: Sequence[CellShown]) -> str:
    """What was read, and how much of it may be used."""
    num_trials = sum(len(cell.trials) for cell in cells)
    num_good = sum(trial.status == "ok" for cell in cells for trial in cell.trials)
    where = ", ".join(f"`{source}`" for source in gathered.sources)
    return (
        f"{len(cells)} cells, {num_trials} trials, {num_good} of them may be used, "
        f"{len(gathered.damaged)} could not be read; from {where}.\n"
    )


def problems(gathered: Gathered, cells: Sequence[CellShown]) -> Iterator[str]:
    """What must not be read as a result."""
    lines = [f"- damaged: {plain(one.place)}: {plain(one.reason)}" for one in gathered.damaged]
    lines += [
        f"- {trial.status}: {plain(trial.place)}: {plain('; '.join(trial.reasons))}"
        for cell in cells
        for trial in cell.trials
        if trial.status != "ok"
    ]
    if lines:
        yield "## Verdicts\n"
        yield from lines[:MOST_ROWS]
        if len(lines) > MOST_ROWS:
            yield f"- and {len(lines) - MOST_ROWS} more: see report.csv"
        yield ""


def fronts(cells: Sequence[CellShown]) -> Iterator[str]:
    """For each group, what no other point of it beats."""
    for name, some in groups_of(cells):
        cost = cost_of(some)
        points = points_of(some, cost)
        if not points:
            continue
        label = QUANTITIES[cost].label
        yield f"## {plain(name)}\n"
        yield f"Not beaten in accuracy and {label}, of {len(points)} points; n: answers scored.\n"
        yield f"| algorithm, budget | tier | accuracy | n | {label} |"
        yield "|---|---|---:|---:|---:|"
        yield from (_front_row(point, cost) for point in front_of(points))
        yield ""


def _front_row(point: Point, cost: str) -> str:
    name = plain(point.label) + (" (simulated)" if point.cell.simulated else "")
    tier, n = plain(str(point.cell.what.get("tier", UNKNOWN))), point.accuracy.n
    score = shown(point.accuracy, "score")
    return f"| {name} | {tier} | {score} | {n} | {shown(point.cost, QUANTITIES[cost].kind)} |"


def table(cells: Sequence[CellShown]) -> Iterator[str]:
    """Every cell and arm, up to a length that can be read."""
    rows = [(cell, name) for cell in cells for name in cell.arms]
    if not rows:
        return
    labels = [QUANTITIES[key].label for key in COLUMNS]
    yield "## Cells\n"
    yield "| " + " | ".join(("cell", "arm", "tier", "length", *labels)) + " |"
    yield "|---|---|---|---:|" + "---:|" * len(labels)
    for cell, name in rows[:MOST_ROWS]:
        start = (cell.id[:8], plain(label_of(cell, name)), plain(str(cell.what.get("tier", ""))))
        values = [shown(cell.arms[name].readings.get(key), QUANTITIES[key].kind) for key in COLUMNS]
        yield "| " + " | ".join((*start, str(cell.what.get("length", "")), *values)) + " |"
    if len(rows) > MOST_ROWS:
        yield f"\n{len(rows) - MOST_ROWS} more rows: see report.csv"


def shown(one: Reading | None, kind: Kind) -> str:
    """The value and its interval."""
    if one is None:
        return UNKNOWN
    form = FORMATS.get(kind, digits)
    if one.lo is None or one.hi is None:
        return form(one.value)
    return f"{form(one.value)} [{form(one.lo)}, {form(one.hi)}]"


def plain(text: str) -> str:
    """Text of a record that is neither markup nor HTML, in one line."""
    return " ".join(text.split()).translate(SPECIAL)
