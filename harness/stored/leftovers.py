"""What nobody needs: writes that were broken off, locks that nobody holds, trials of long ago."""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.sources import measured_sha256, measuring_sha256
from harness.stored.files import TEMPORARY_PREFIX, temporary_name
from harness.stored.index import Row, read_row
from harness.stored.locks import LOCK, cell_lock
from harness.stored.unfinished import outdated

OURS = re.compile(re.escape(TEMPORARY_PREFIX) + r"(\d+)-[0-9a-f]{8}")
# A writer on another machine is not among our processes, but it is at work.
IDLE_S = 60.0


@dataclass
class Removed:
    """How many of each there were."""

    temporaries: int = 0
    locks: int = 0
    trials: int = 0
    unfinished: int = 0


def collect(root: Path, *, keep: int | None = None, idle_s: float = IDLE_S) -> Removed:
    """Remove what is left over; a cell whose lock is held is not touched.

    keep: of each cell and code the newest so many trials, those that went well first; None keeps
    all. idle_s: for which nothing of a broken write has changed.
    """
    removed = Removed()
    for place in [root, *root.glob("[!.]*/")]:
        removed.temporaries += _remove_temporaries(place, idle_s)
    for cell in sorted(root.glob("[!.]*/[!.]*/")):
        was_there = (cell / LOCK).exists()
        with cell_lock(cell, wait=False) as is_ours:
            if not is_ours:
                continue
            removed.temporaries += _remove_temporaries(cell, idle_s)
            for path in outdated(cell, [measured_sha256(), measuring_sha256()]):
                path.unlink()
                removed.unfinished += 1
            if keep is not None:
                removed.trials += _remove_old(cell, keep)
            # While we hold it: who waits for it sees that it is gone, and makes another.
            (cell / LOCK).unlink()
            removed.locks += was_there
    return removed


def surplus(cell: Path, keep: int) -> Iterator[Path]:
    """The trials of a cell beyond `keep` of each code; damaged ones are not ours to judge."""
    kept: dict[str | None, int] = {}
    rows = [read_row(cell, folder.name) for folder in cell.glob("[!.]*/")]
    for row in sorted(rows, key=_worth, reverse=True):
        code = row.cell.code if row.cell else None
        if row.damage is None:
            kept[code] = kept.get(code, 0) + 1
            if kept[code] > keep:
                yield cell / row.folder


def is_left_over(path: Path, idle_s: float) -> bool:
    """Whether a temporary file or folder is of a writer that is no more."""
    found = OURS.fullmatch(path.name)
    if found is None:
        return False
    touched_s = max((one.lstat().st_mtime for one in (path, *path.rglob("*"))), default=0.0)
    return time.time() - touched_s >= idle_s and not _is_writer(int(found[1]), touched_s)


def _worth(row: Row) -> tuple[bool, str]:
    return row.status == "ok" and bool(row.n_done), row.folder


def _is_writer(pid: int, touched_s: float) -> bool:
    """A process of this number that started after the last touch is another."""
    try:
        return psutil.Process(pid).create_time() <= touched_s + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _remove_temporaries(place: Path, idle_s: float) -> int:
    left = [one for one in place.glob(f"{TEMPORARY_PREFIX}*") if is_left_over(one, idle_s)]
    for one in left:
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    return len(left)


def _remove_old(cell: Path, keep: int) -> int:
    old = list(surplus(cell, keep))
    for folder in old:
        # Out of sight first: half a trial would be a damaged one.
        shutil.rmtree(folder.rename(temporary_name(cell)))
    return len(old)
