"""Hit ratios as a picture, PNG and SVG; needs matplotlib, which is the extra `report`."""

from io import BytesIO
from typing import Any

import numpy as np

BOUND = "belady"
# Okabe and Ito's palette, which readers tell apart whatever colours they see.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#8C564B")
INK, PALE = "#222222", "#DDDDDD"
TICKS = (0, 0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8)
# From the middle of a label's right edge to the very point.
LEADER = {"arrowstyle": "-", "shrinkB": 0, "relpos": (1, 0.5)}
STYLE: Any = {
    "font.size": 12,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "kvloom",
}


def draw(found: dict[str, Any]) -> dict[str, bytes]:
    """The picture by file name; nothing where matplotlib is missing."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return {}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 5.4), facecolor="white", layout="constrained")
        _plot(figure.add_subplot(), found)
        return {f"hit_ratio.{kind}": _saved(figure, kind) for kind in ("png", "svg")}


def _plot(axes: Any, found: dict[str, Any]) -> None:
    ratios, curves = found["ratios"], found["hit_ratio"]
    order = sorted(curves, key=lambda name: -sum(curves[name]))
    others = [name for name in order if name != BOUND]
    colour_of = {BOUND: INK, **dict(zip(others, COLOURS * len(others), strict=False))}
    for rank, name in enumerate(order):
        values = [100 * value for value in curves[name]]
        # Thick below thin by turns, as neighbours in rank may coincide.
        width = 1.8 if rank % 2 == 0 else 3.6
        line = {"color": colour_of[name], "linewidth": width, "zorder": 7 - width}
        axes.plot(ratios, values, "--" if name == BOUND else "-", **line)
        knee = found["knee"][name]
        axes.plot(knee, values[ratios.index(knee)], "o", markersize=5 + 1.5 * width, **line)
    _frame(axes, found)
    _labels(axes, found, colour_of)


def _frame(axes: Any, found: dict[str, Any]) -> None:
    trace, ratios = found["trace"], found["ratios"]
    shown = [100 * value for curve in found["hit_ratio"].values() for value in curve]
    margin = 0.06 * max(max(shown) - min(shown), 1)
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.set_xscale("function", functions=(np.sqrt, np.square))
    axes.set_xlim(ratios[0], ratios[-1] * 1.01)
    axes.set_xticks([ratio for ratio in TICKS if ratios[0] <= ratio <= ratios[-1]])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_xlabel("buffering pages : mandatory pages (square-root scale)")
    axes.set_ylabel("hit ratio, %")
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "left"]].set_visible(False)
    axes.figure.suptitle(
        f"Hit ratio of {trace['algorithm']} on {trace['model']}, simulated on page ids",
        x=0.01,
        ha="left",
        fontweight="bold",
    )
    axes.set_title(
        f"{len(trace['requests'])} requests, {found['steps']} decode steps, mandatory "
        f"{found['mandatory_pages']:,} pages; knee (dot): within 1 point of the policy's best",
        fontsize=10.5,
        loc="left",
        x=-0.337,
    )


def _labels(axes: Any, found: dict[str, Any], colour_of: dict[str, str]) -> None:
    """Names where the lines begin, moved apart where they would overlap."""
    starts = {name: 100 * curve[0] for name, curve in found["hit_ratio"].items()}
    low, high = axes.get_ylim()
    names = sorted(starts, key=lambda name: starts[name])
    places = apart([starts[name] for name in names], (high - low) / 18, low, high)
    for name, place in zip(names, places, strict=True):
        axes.annotate(
            f"{name}, knee {found['knee'][name]:g}",
            (0, (starts[name] - low) / (high - low)),
            xytext=(-0.04, (place - low) / (high - low)),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour_of[name],
            ha="right",
            va="center",
            annotation_clip=False,
            arrowprops=LEADER | {"color": colour_of[name]},
        )


def apart(wished: list[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending places at least `gap` apart, near the wished ones, within [low, high] if it fits.

    Places that crowd each other share out the room around their mean.
    """
    groups: list[list[float]] = []
    for place in wished:
        groups.append([place])
        while len(groups) > 1 and _first(groups[-1], gap) < _last(groups[-2], gap) + gap:
            crowd = groups.pop()
            groups[-1] += crowd
    places = [_first(group, gap) + gap * k for group in groups for k in range(len(group))]
    shift = max(0.0, low - places[0]) - max(0.0, places[-1] - high)
    return [place + shift for place in places] if shift else places


def _first(group: list[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def _last(group: list[float], gap: float) -> float:
    return sum(group) / len(group) + gap * (len(group) - 1) / 2


def _saved(figure: Any, kind: str) -> bytes:
    buffer = BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
