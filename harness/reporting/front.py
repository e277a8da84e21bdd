"""Points of a group, and those of them that no other beats: what pictures and Markdown share."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.reporting.axes import NUM_DIGESTS
from harness.reporting.cells import ArmShown, CellShown
from harness.reporting.readings import Reading

# Costs in the order of preference for the x axis.
COSTS = ("tpot_ratio", "kv", "memory")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One arm of a cell, with its accuracy and its cost."""

    cell: CellShown
    arm: str
    shown: ArmShown
    accuracy: Reading
    cost: Reading

    @property
    def label(self) -> str:
        """The algorithm and its budget."""
        return label_of(self.cell, self.arm)

    @property
    def is_baseline(self) -> bool:
        """Whether this is what the others are compared with."""
        return self.arm == self.cell.baseline

    @property
    def is_bound(self) -> bool:
        """Whether this is there only to compare with; the baseline of a bound is none."""
        return self.cell.bound and not self.is_baseline


def label_of(cell: CellShown, arm: str) -> str:
    """The algorithm and its budget; the baseline has none."""
    budget, fraction = cell.what.get("budget"), cell.what.get("fraction")
    if arm == cell.baseline:
        return arm
    if budget is not None:
        return f"{arm} {budget:,}"
    return arm if fraction is None else f"{arm} {100 * fraction:g} %"


def groups_of(cells: Sequence[CellShown]) -> list[tuple[str, list[CellShown]]]:
    """The usable cells that may be compared with one another, the largest group first."""
    groups: dict[tuple[str, ...], list[CellShown]] = {}
    for cell in cells:
        if cell.valid and cell.current:
            groups.setdefault(cell.group, []).append(cell)
    ranked = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [(", ".join(group[:-NUM_DIGESTS]), some) for group, some in ranked]


def points_of(cells: Sequence[CellShown], cost: str) -> list[Point]:
    """Every arm that has both an accuracy and this cost."""
    return [
        Point(cell=cell, arm=name, shown=arm, accuracy=arm.readings["acc"], cost=arm.readings[cost])
        for cell in cells
        for name, arm in cell.arms.items()
        if "acc" in arm.readings and cost in arm.readings
    ]


def cost_of(cells: Sequence[CellShown]) -> str:
    """The first cost that arms beside the baseline have; the last of all if none has any."""
    known = (cost for cost in COSTS if any(not one.is_baseline for one in points_of(cells, cost)))
    return next(known, COSTS[-1])


def front_of(points: Sequence[Point]) -> list[Point]:
    """By rising cost, the points with more accuracy than all cheaper ones; bounds take no part."""
    front: list[Point] = []
    able = [point for point in points if not point.is_bound]
    for point in sorted(able, key=lambda one: (one.cost.value, -one.accuracy.value)):
        if not front or point.accuracy.value > front[-1].accuracy.value:
            front.append(point)
    return front
