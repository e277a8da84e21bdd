"""Where studies keep what they found: a folder per run, beside the records."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from harness.stored.files import write_folder


def keep_findings(root: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write files by their names to a new folder under `root`; the path of the folder."""
    return write_folder(
        root, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(4)}", files
    )
