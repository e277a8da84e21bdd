"""A file without a name and of fixed size: its blocks are there from the start, none afterwards."""

import errno
import fcntl
import mmap
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Literal

Direct = bool | Literal["auto"]
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What direct requests must be aligned to, in memory and in the file.
ALIGNMENT = 4096


class OutOfDiskError(MemoryError):
    """The file system has no room for what tier.disk.size asks for."""


class DiskFile:
    """A file without a name in a folder: it goes with the process, however that ends.

    fd: its descriptor; direct: whether requests pass the page cache of the system by.
    """

    def __init__(
        self, key: str, folder: Path, num_pages: int, page_bytes: int, direct: Direct
    ) -> None:
        """Make the file, all zeros; key: of the tier, for messages.

        Raises OutOfDiskError, or ValueError for a folder or a direct mode that cannot be had.
        """
        self._key = key
        self._folder = folder
        self._size = num_pages * page_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise ValueError(
                f"{key}.path={str(folder)!r}: {error.strerror}; name a folder that can be written"
            ) from error
        self.close = weakref.finalize(self, file.close)
        self.fd = file.fileno()
        self._preallocate()
        self.direct = self._choose(direct, page_bytes)
        if not self.direct:
            # No read-ahead: what lies behind a page is another one's turn.
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_RANDOM)

    def refuse(self, error: int, what: str) -> OSError | OutOfDiskError:
        """The exception for a write that failed; what: happened; error: 0 where it came short."""
        if error and error not in FULL:
            return OSError(f"{self._key}.path={str(self._folder)!r}: {what}: {os.strerror(error)}")
        free = shutil.disk_usage(self._folder).free
        return OutOfDiskError(
            f"{self._key}.size asks for {self._size} bytes in {str(self._folder)!r}, {free} are "
            f"free, and {what}: {os.strerror(error or errno.ENOSPC)}; lower {self._key}.size or "
            f"backend.max_batch, or name a roomier folder in {self._key}.path"
        )

    def _preallocate(self) -> None:
        if self._size == 0:
            return
        try:
            os.posix_fallocate(self.fd, 0, self._size)
        except OSError as error:
            self.close()
            raise self.refuse(error.errno or 0, "they cannot be had") from error

    def _choose(self, direct: Direct, page_bytes: int) -> bool:
        if direct is False:
            return False
        refusal = self._obstacle(page_bytes)
        if direct is True and refusal is not None:
            self.close()
            raise ValueError(f"{self._key}.direct=true: {refusal}; use {self._key}.direct=auto")
        return refusal is None

    def _obstacle(self, page_bytes: int) -> str | None:
        """Why requests cannot be direct; None when they now are."""
        if page_bytes % ALIGNMENT:
            return f"a page of {page_bytes} bytes is no multiple of {ALIGNMENT}"
        flags = fcntl.fcntl(self.fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, flags | os.O_DIRECT)
            with mmap.mmap(-1, ALIGNMENT) as probe:
                os.preadv(self.fd, [probe], 0)
        except OSError as error:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, flags)
            return f"the file system of {str(self._folder)!r} refuses it ({error.strerror})"
        return None
