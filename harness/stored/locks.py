"""One process at a time for each cell, whatever happens to it: the kernel releases its locks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"
POLL_S = 0.2


@contextmanager
def cell_lock(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether the cell of this folder is ours until the end of the block.

    wait: until it is, where another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=wait, poll_interval=POLL_S)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
