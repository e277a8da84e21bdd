"""Accuracy against KV read, one small panel per algorithm; needs matplotlib (extra `report`)."""

from io import BytesIO
from typing import Any

from harness.studies.algorithm_points import on_front

COLUMNS = 5
TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100)
# What is on the x axis, by the name of the file.
AXES = {
    "algorithms": ("kv_read", "KV pages read per decode step, % of dense (log scale)"),
    "algorithms_tokens": ("wanted", "tokens read per decode step, % of the context (log scale)"),
}
INK, PALE, FRONT = "#222222", "#D9D9D9", "#D55E00"
RING: Any = {
    "marker": "o",
    "markersize": 8,
    "markerfacecolor": "none",
    "markeredgecolor": FRONT,
    "markeredgewidth": 1.6,
}
# Light to dark with the length, one hue: readers tell them apart whatever colours they see.
SHADES = ("#9ECAE1", "#4292C6", "#08306B", "#041A38")
STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "kvloom",
}


def draw(found: dict[str, Any]) -> dict[str, bytes]:
    """The pictures by file name; nothing where matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return {}
    with mpl.rc_context(STYLE):
        return {
            f"{name}.{kind}": picture
            for name, (key, label) in AXES.items()
            for kind, picture in _pictures(found, key, label).items()
        }


def _pictures(found: dict[str, Any], key: str, label: str) -> dict[str, bytes]:
    from matplotlib.figure import Figure

    read = [one | {"kv_read": one[key]} for one in found["points"] if _shown(one, key)]
    points = [one | {"x": 100 * one["kv_read"], "front": on_front(one, read)} for one in read]
    names = _ranked(points)
    if not names:
        return {}
    rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(12.5, 1.2 + 2.1 * rows), facecolor="white", layout="constrained")
    grid = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        _panel(axes, name, points, found)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_visible(False)
    _frame(figure, grid, names, found)
    figure.supxlabel(label, fontsize=9, x=0.995, ha="right")
    return {kind: _saved(figure, kind) for kind in ("png", "svg")}


def _shown(point: dict[str, Any], key: str) -> bool:
    return point["budget"] is not None and bool(point.get(key))


def _ranked(points: list[dict[str, Any]]) -> list[str]:
    """Algorithms, the best mean score first."""
    scores: dict[str, list[float]] = {}
    for point in points:
        scores.setdefault(point["algo"], []).append(point["score"])
    return sorted(scores, key=lambda name: -sum(scores[name]) / len(scores[name]))


def _panel(axes: Any, name: str, points: list[dict[str, Any]], found: dict[str, Any]) -> None:
    for other in sorted({point["algo"] for point in points} - {name}):
        longest = _line(points, other, found["lengths"][-1])
        axes.plot(*longest, "-", color=PALE, linewidth=0.7, zorder=1)
    for shade, length in _shades(found):
        axes.plot(*_line(points, name, length), "o-", color=shade, linewidth=1.6, markersize=3.5)
        known = [one for one in _mine(points, name, length) if one["interval"]]
        lows, highs = ([one["interval"][end] for one in known] for end in (0, 1))
        axes.vlines([one["x"] for one in known], lows, highs, color=shade, linewidth=0.8, alpha=0.6)
    front = [one for one in points if one["algo"] == name and one["front"]]
    axes.plot(
        [one["x"] for one in front],
        [one["score"] for one in front],
        linestyle="",
        zorder=5,
        **RING,
    )
    bound = any(one["bound"] for one in points if one["algo"] == name)
    axes.set_title(f"{name} (a bound)" if bound else name, loc="left", fontsize=10)
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlim(0.8 * min(0.45, *(one["x"] for one in points)), 115)
    axes.set_ylim(-0.04, 1.06)
    axes.grid(axis="y", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _shades(found: dict[str, Any]) -> list[tuple[str, int]]:
    """A shade for each length, dark ones where there are few."""
    lengths = found["lengths"]
    first = max(0, len(SHADES) - 1 - len(lengths))
    return list(zip(SHADES[first:], lengths, strict=False))


def _mine(points: list[dict[str, Any]], name: str, length: int) -> list[dict[str, Any]]:
    return [one for one in points if one["algo"] == name and one["length"] == length]


def _line(points: list[dict[str, Any]], name: str, length: int) -> tuple[list[float], list[float]]:
    mine = sorted(_mine(points, name, length), key=lambda one: one["budget"])
    return [one["x"] for one in mine], [one["score"] for one in mine]


def _frame(figure: Any, grid: Any, names: list[str], found: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=shade, marker="o", markersize=4, label=f"{length:,} tokens")
        for shade, length in _shades(found)
    ]
    ring: dict[str, Any] = {
        "markerfacecolor": "none",
        "markeredgecolor": FRONT,
        "markeredgewidth": 1.6,
    }
    handles.append(Line2D([], [], linestyle="", marker="o", markersize=8, label="on front", **ring))
    others = f"the others at {found['lengths'][-1]:,}"
    handles.append(Line2D([], [], color=PALE, label=others))
    handles.append(Line2D([], [], color=INK, linewidth=0.8, label="95 % interval"))
    figure.suptitle(
        f"Accuracy against what a decode step reads, budgets of {found['budgets'][0]} to "
        f"{found['budgets'][-1]} tokens; best mean score first",
        x=0.01,
        ha="left",
        fontweight="bold",
        fontsize=11,
    )
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)
    figure.supylabel("score, mean of tasks", fontsize=9)
    for axes in grid.flat[max(0, len(names) - COLUMNS) : len(names)]:
        axes.tick_params(labelbottom=True)


def _saved(figure: Any, kind: str) -> bytes:
    buffer = BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
