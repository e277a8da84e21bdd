"""Fidelity by layer and head as a picture, PNG and SVG; needs matplotlib, the extra `report`."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np

from harness.record import Fidelity, Grid, RunRecord

STYLE: Any = {"font.size": 11, "font.family": "DejaVu Sans", "svg.hashsalt": "kvloom"}
# Cells up to this number of them hold their value.
MOST_LABELLED = 160


def pictures(record: RunRecord) -> Mapping[str, bytes]:
    """Pictures by file name: none where no probe looked, or where matplotlib is missing."""
    seen = {name: arm.fidelity for name, arm in record.arms.items() if arm.fidelity is not None}
    for name, fidelity in seen.items():
        if fidelity.mass_recalled_LH:
            return draw(f"{name} on {record.system.model.id}", fidelity)
    return {}


def draw(title: str, fidelity: Fidelity) -> Mapping[str, bytes]:
    """Mass recalled and output error side by side."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return {}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.6), facecolor="white", layout="constrained")
        left, right = figure.subplots(1, 2)
        _plot(left, fidelity.mass_recalled_LH, "attention mass recalled, %", "viridis", top=100)
        _plot(right, fidelity.output_error_LH, "output error, % of dense", "magma_r", top=None)
        figure.suptitle(
            f"{title}: means of {fidelity.num_steps} decode steps, {len(fidelity.uids)} requests"
        )
        return {f"fidelity.{kind}": _saved(figure, kind) for kind in ("png", "svg")}


def _plot(axes: Any, grid: Grid, title: str, colours: str, *, top: float | None) -> None:
    percent_LH = 100 * np.array(grid, dtype=np.float64)
    image = axes.imshow(percent_LH, cmap=colours, vmin=0, vmax=top, aspect="auto")
    axes.figure.colorbar(image, ax=axes)
    axes.set_title(title)
    axes.set_xlabel("query head")
    axes.set_ylabel("layer")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    if percent_LH.size <= MOST_LABELLED:
        _label(axes, image, percent_LH)


def _label(axes: Any, image: Any, percent_LH: Any) -> None:
    for (layer, head), percent in np.ndenumerate(percent_LH):
        red, green, blue, _ = image.cmap(image.norm(percent))
        bright = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
        place = {"ha": "center", "va": "center", "fontsize": 8}
        axes.text(head, layer, f"{percent:.0f}", color="black" if bright else "white", **place)


def _saved(figure: Any, kind: str) -> bytes:
    buffer = BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()
