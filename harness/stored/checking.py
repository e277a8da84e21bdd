"""Is every trial of a store what was written? Nothing is changed by asking."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.stored.quarantine import QUARANTINE
from harness.stored.trials import Damaged, Trial, scan


@dataclass
class Findings:
    """Of a store: by experiment and status, how many; and what is damaged."""

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    damaged: list[Damaged] = field(default_factory=list)

    @property
    def num_trials(self) -> int:
        """Trials that can be read."""
        return sum(counts.total() for counts in self.statuses.values())


def check(root: Path) -> Findings:
    """Read everything under `root`."""
    findings = Findings()
    for found in once_each(root):
        if isinstance(found, Damaged):
            findings.damaged.append(found)
            continue
        experiment, run = found.folder.parts[-3], found.record.run
        kind = "invalid" if run.status == "ok" and not run.verdict.valid else run.status
        findings.statuses.setdefault(experiment, Counter())[kind] += 1
    return findings


def once_each(root: Path) -> Iterator[Trial | Damaged]:
    """What `scan` finds; a run that is there twice counts once, whatever the experiment."""
    places: dict[str, Path] = {}
    for found in scan(root):
        if isinstance(found, Trial):
            first = places.setdefault(found.record.run.uid, found.folder)
            if first != found.folder:
                yield Damaged(found.folder, f"the same run as {first.relative_to(root)}")
                continue
        yield found


def num_quarantined(root: Path) -> int:
    """Folders that were put away."""
    return sum(1 for _ in root.glob(f"{QUARANTINE}/*/*/*/"))
