"""Where studies keep what they found: a folder per run, which is there whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from harness.store import TEMPORARY_PREFIX, sync_folder


def keep_findings(root: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write files by their names to a new folder under `root`; the path of the folder."""
    root.mkdir(parents=True, exist_ok=True)
    uid = secrets.token_hex(4)
    temporary = root / f"{TEMPORARY_PREFIX}{os.getpid()}-{uid}"
    final = root / f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{name}-{uid}"
    try:
        temporary.mkdir()
        for file_name, content in files.items():
            (temporary / file_name).write_bytes(content)
        sync_folder(temporary)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final
