"""Folders that are there whole or not at all, and files that are on the disk once written."""

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"


def write_folder(root: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write files by their names, in this order, to a new folder under `root`, all at once."""
    root.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(root)
    try:
        temporary.mkdir()
        for file_name, content in files.items():
            write_durably(temporary / file_name, content)
        sync_folder(temporary)
        temporary.rename(root / name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(root)
    return root / name


def temporary_name(parent: Path) -> Path:
    """A name under `parent` that nobody has, that readers pass over, and that tells whose it is."""
    return parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file, and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, over one that may be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path.parent)
    try:
        write_durably(temporary, content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Raise ValueError of one line if nothing can be written under `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = temporary_name(folder)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"results={folder}: {error.strerror}; give results=FOLDER") from None
