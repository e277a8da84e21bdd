"""Where records are kept: one folder per run, which is there whole or not at all."""

import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from harness.record import RunRecord

RECORD_NAME = "record.json"
TEMPORARY_PREFIX = ".tmp-"

logger = logging.getLogger(__name__)


def write_record(
    record: RunRecord, root: Path, beside: Mapping[str, bytes] = MappingProxyType({})
) -> Path:
    """Write a record under `root`, durably and at once; the path of its file.

    beside: other files of the same folder, by name.
    """
    content = (record.model_dump_json(indent=1) + "\n").encode()
    files = {RECORD_NAME: content, **beside}
    return write_folder(root, folder_name(record), files) / RECORD_NAME


def write_folder(root: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write files by their names to a new folder under `root`, durably and all at once."""
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
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


def read_records(root: Path) -> Iterator[RunRecord]:
    """The records under `root`, oldest first; one that is damaged is left out with a warning."""
    for path in sorted(root.glob(f"*/{RECORD_NAME}")):
        if path.parent.name.startswith(TEMPORARY_PREFIX):
            continue
        try:
            yield read_record(path)
        except (OSError, ValidationError) as error:
            logger.warning("%s is no record and is left out: %s", path, error)


def read_record(path: Path) -> RunRecord:
    """One record, checked against the schema."""
    return RunRecord.model_validate_json(path.read_bytes())


def folder_name(record: RunRecord) -> str:
    """When, what, and enough of the uid: sorts by time and names no two runs alike."""
    started = record.run.started_at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    algo = re.sub(r"[^\w+.-]", "_", record.system.algo)
    return f"{started}-{algo}-{record.run.uid[:8]}"


def write_durably(path: Path, content: bytes) -> None:
    """Write a new file, and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
