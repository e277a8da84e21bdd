"""What A/A rounds show where nothing changed: kept by hardware and cell, with its source."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import AwareDatetime, NonNegativeInt

from harness.exact_tests import Floats
from harness.record import RunRecord
from harness.schema import Part
from harness.tracking.lines import append, read

NOISE = "noise.jsonl"


class NoiseRow(Part):
    """One A/A measurement. noise: by metric, as a share; source: how it was taken."""

    fingerprint: str
    cell: str
    benchmark: str
    measured_at: AwareDatetime
    sha: str | None
    num_rounds: NonNegativeInt
    noise: dict[str, float]
    source: str


@dataclass(frozen=True)
class Noise:
    """Noise by metric, and where it comes from."""

    by_metric: dict[str, float] = field(default_factory=dict)
    source: str = "none was measured: the margin is the floor"

    def of(self, names: Sequence[str]) -> Floats:
        """Shares, float64 [M]; NaN where it was not measured."""
        return np.array([self.by_metric.get(name, math.nan) for name in names])


def noise_for(folder: Path, record: RunRecord) -> Noise:
    """The last that was measured of this cell on this hardware."""
    rows = [row for row in read(folder / NOISE, NoiseRow).rows if _fits(row, record)]
    if not rows:
        return Noise()
    return Noise(rows[-1].noise, rows[-1].source)


def keep(folder: Path, row: NoiseRow) -> None:
    """Add a measurement."""
    append(folder / NOISE, row)


def _fits(row: NoiseRow, record: RunRecord) -> bool:
    return (
        record.cell is not None
        and row.cell == record.cell.hash
        and row.fingerprint == record.env.fingerprint
    )
