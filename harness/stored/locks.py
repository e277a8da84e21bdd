"""One process at a time for a cell or a file, whatever happens to it: the kernel frees locks."""

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


@contextmanager
def file_lock(path: Path, *, timeout_s: float) -> Iterator[None]:
    """Nobody else writes this file until the end of the block; raises TimeoutError."""
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout_s):
        yield
