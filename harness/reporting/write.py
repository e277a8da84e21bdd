"""From stores and records to the files of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.reporting.csv_rows import csv_text
from harness.reporting.gather import gather
from harness.reporting.history import history
from harness.reporting.markdown import markdown
from harness.reporting.page import page
from harness.reporting.payload import all_cells, payload
from harness.reporting.pictures import pictures
from harness.stored.files import replace_durably


def write_report(
    sources: Sequence[Path], out: Path, baselines: Path, static: Path | None = None
) -> Path:
    """Write all files to `out`, and a site to `static`; the path of the page."""
    gathered = gather(sources)
    lines, problems = history(baselines, gathered.seen)
    gathered.damaged += problems
    cells = all_cells(gathered)
    drawn = pictures(cells)
    html = page(payload(gathered, cells, lines), "KVLoom report").encode()
    csv = csv_text(cells).encode()
    words = markdown(gathered, cells, [name for name in drawn if name.endswith(".png")]).encode()
    _write(out, {"report.html": html, "report.md": words, "report.csv": csv}, drawn)
    if static is not None:
        # GitHub Pages hides files of some names unless .nojekyll is there.
        _write(static, {"index.html": html, "report.csv": csv, ".nojekyll": b""}, drawn)
    return out / "report.html"


def _write(folder: Path, files: Mapping[str, bytes], figures: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        replace_durably(folder / name, content)
    for name, content in figures.items():
        replace_durably(folder / "figures" / name, content)
