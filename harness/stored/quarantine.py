"""Damaged folders out of the way, with the reason beside what is left of them."""

from collections.abc import Iterator
from pathlib import Path

from harness.stored.files import sync_folder, write_durably
from harness.stored.trials import Damaged, Trial, in_cell

QUARANTINE, REASON = ".quarantine", "REASON.txt"


def quarantine(damaged: Damaged, root: Path) -> Path:
    """Move a folder to `.quarantine/<experiment>/<cell>/<trial>`; where it is now."""
    place = root / QUARANTINE / damaged.folder.parent.relative_to(root)
    place.mkdir(parents=True, exist_ok=True)
    target = _free(place / damaged.folder.name)
    damaged.folder.rename(target)
    reason = _free(target / REASON) if target.is_dir() else _free(target.with_suffix(".txt"))
    write_durably(reason, f"{damaged.reason}\n".encode())
    sync_folder(target.parent)
    return target


def sound_trials(cell: Path, root: Path) -> Iterator[Trial]:
    """The trials of a cell, by time; what is damaged goes into quarantine."""
    for found in list(in_cell(cell)):
        if isinstance(found, Damaged):
            quarantine(found, root)
        else:
            yield found


def _free(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free
