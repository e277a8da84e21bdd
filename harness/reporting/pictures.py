"""Pictures for papers, as PNG and SVG; needs matplotlib (extra `report`)."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from statistics import median
from textwrap import fill
from typing import Any

from harness.reporting.cells import CellShown
from harness.reporting.front import Point, cost_of, front_of, groups_of, label_of, points_of
from harness.reporting.quantities import QUANTITIES
from harness.reporting.readings import Reading

INK, SOFT = "#1b1f24", "#8a929b"
# Okabe and Ito's, without yellow; shapes tell the same tiers apart.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (8, 2)))
MOST_ROWS = 24
MOST_LINES = 6
STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "svg.hashsalt": "kvloom",
    "legend.frameon": False,
}


def pictures(cells: Sequence[CellShown]) -> dict[str, bytes]:
    """The pictures by file name, of the largest group; none where matplotlib is missing."""
    groups = groups_of(cells)
    if not groups:
        return {}
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return {}
    title, some = groups[0]
    drawn = {}
    with mpl.rc_context(STYLE):
        for name, draw in (("pareto", _pareto), ("bytes", _moved), ("latency", _latency)):
            drawn[name] = draw(some, title)
        drawn["lengths"] = _lengths([cell for _, group in groups for cell in group])
        return {
            f"{name}.{kind}": _saved(figure, kind)
            for name, figure in drawn.items()
            if figure is not None
            for kind in ("png", "svg")
        }


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white", layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _pareto(cells: Sequence[CellShown], title: str) -> Any:
    """Accuracy against cost; the front in full ink with its intervals."""
    cost = cost_of(cells)
    points = points_of(cells, cost)
    if not points:
        return None
    figure, (axes,) = _figure(6.4, 4.2)
    front = front_of(points)
    tiers = sorted({str(point.cell.what.get("tier")) for point in points})
    for point in points:
        _dot(axes, point, tiers.index(str(point.cell.what.get("tier"))), point in front)
    for point in [point for point in points if point.is_baseline][:1]:
        at = (point.cost.value, point.accuracy.value)
        axes.annotate(point.label, at, (6, 4), textcoords="offset points", fontsize=8)
    costs = [point.cost.value for point in front]
    axes.step(costs, [one.accuracy.value for one in front], where="post", color=SOFT, linewidth=0.8)
    for number, tier in enumerate(tiers):
        axes.plot([], [], linestyle="", marker=_shape(number), color=_hue(number), label=tier)
    axes.legend(loc="lower right")
    positive = [point.cost.value for point in points if point.cost.value > 0]
    if len(positive) == len(points) and max(positive) > 4 * min(positive):
        axes.set_xscale("log")
    axes.set(xlabel=QUANTITIES[cost].label, ylabel="accuracy")
    _name(figure, title)
    return figure


def _dot(axes: Any, point: Point, tier: int, strong: bool) -> None:
    at, hue = (point.cost.value, point.accuracy.value), _hue(tier)
    if strong:
        axes.errorbar(*at, xerr=_error(point.cost), yerr=_error(point.accuracy), color=hue, lw=0.9)
        axes.annotate(point.label, at, (6, 4), textcoords="offset points", fontsize=8)
    fill = "white" if point.is_baseline or point.is_bound else hue
    style = {"markerfacecolor": fill, "markeredgecolor": hue, "alpha": 1 if strong else 0.25}
    axes.plot(*at, linestyle="", marker=_shape(tier), markersize=5.5, **style)


def _error(one: Reading) -> list[list[float]] | None:
    if one.lo is None or one.hi is None:
        return None
    return [[max(0.0, one.value - one.lo)], [max(0.0, one.hi - one.value)]]


def _lengths(cells: Sequence[CellShown]) -> Any:
    """Accuracy by algorithm and length."""
    scores: dict[str, dict[int, list[float]]] = {}
    for cell in cells:
        for name, arm in cell.arms.items():
            length, one = cell.what.get("length"), arm.readings.get("acc")
            if length is not None and one is not None:
                scores.setdefault(label_of(cell, name), {}).setdefault(length, []).append(one.value)
    if not scores:
        return None
    means = {name: median(v for by in row.values() for v in by) for name, row in scores.items()}
    names = sorted(scores, key=lambda name: -means[name])[:MOST_ROWS]
    lengths = sorted({length for row in scores.values() for length in row})
    grid = [
        [median(scores[name].get(length, [float("nan")])) for length in lengths] for name in names
    ]
    figure, (axes,) = _figure(2.6 + 0.75 * len(lengths), 1.2 + 0.27 * len(names))
    axes.imshow(grid, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, values in enumerate(grid):
        for column, score in enumerate(values):
            text = "" if score != score else f"{100 * score:.0f}"
            colour = "white" if score > 0.6 else INK
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes.set_yticks(range(len(names)), names)
    axes.set_title("Score in %, by tokens of context", loc="left", fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _moved(cells: Sequence[CellShown], title: str) -> Any:
    """Bytes that a decode step moves between tiers, stacked by pair; a baseline once a tier."""
    arms: dict[tuple[str, str], Mapping[str, Reading]] = {}
    for cell in cells:
        for name, arm in cell.arms.items():
            who = "" if name == cell.baseline else cell.id
            if any(one.value for one in arm.moved.values()):
                arms.setdefault(
                    (f"{label_of(cell, name)}, {cell.what.get('tier')}", who), arm.moved
                )
    shown = sorted(arms.items(), key=lambda item: sum(one.value for one in item[1].values()))
    if not shown:
        return None
    names, moves = [name for (name, _), _ in shown[-MOST_ROWS:]], [m for _, m in shown[-MOST_ROWS:]]
    figure, (axes,) = _figure(6.4, 1.5 + 0.24 * len(names))
    left = [0.0] * len(names)
    for number, pair in enumerate(sorted({key for m in moves for key in m if m[key].value})):
        widths = [m[pair].value / 2**20 if pair in m else 0.0 for m in moves]
        axes.barh(range(len(names)), widths, left=left, height=0.7, color=_hue(number), label=pair)
        left = [at + width for at, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("MiB moved per decode step")
    _name(figure, title)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _latency(cells: Sequence[CellShown], title: str) -> Any:
    """ECDFs of TTFT and TPOT over requests: of one baseline and the first systems."""
    arms = [(cell, name, arm) for cell in cells for name, arm in cell.arms.items() if arm.steps]
    base = [one for one in arms if one[1] == one[0].baseline][:1]
    chosen = base + [one for one in arms if one[1] != one[0].baseline][:MOST_LINES]
    if not chosen:
        return None
    figure, panels = _figure(8.4, 3.2, columns=2)
    for axes, latency in zip(panels, ("ttft", "tpot"), strict=True):
        for number, (cell, name, arm) in enumerate(chosen):
            if latency not in arm.steps:
                continue
            values = arm.steps[latency].values
            ranks = [(rank + 1) / len(values) for rank in range(len(values))]
            hue = INK if name == cell.baseline else _hue(number)
            label = f"{label_of(cell, name)}, {cell.what.get('tier')}"
            dashes = DASHES[number % len(DASHES)]
            axes.step(values, ranks, where="post", color=hue, linestyle=dashes, lw=1.3, label=label)
        axes.set(xlabel=f"{latency.upper()}, ms", ylabel="share of requests", ylim=(0, 1.02))
    _name(figure, title)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=3, fontsize=7)
    return figure


def _hue(number: int) -> str:
    return HUES[number % len(HUES)]


def _shape(number: int) -> str:
    return SHAPES[number % len(SHAPES)]


def _name(figure: Any, title: str) -> None:
    """A title at the left, without the mark by which matplotlib knows formulas."""
    figure.suptitle(fill(title.replace("$", r"\$"), 90), x=0.01, ha="left", fontsize=9)


def _saved(figure: Any, kind: str) -> bytes:
    buffer = BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=200, metadata=metadata)
    return buffer.getvalue()
