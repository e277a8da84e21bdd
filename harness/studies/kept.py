"""What a long study has finished, so that one that was stopped goes on where it was."""

import json
from pathlib import Path
from typing import Any

from harness.sources import measured_sha256
from harness.stored.files import replace_durably


class Kept:
    """Files of JSON by name, apart for each state of the sources and each digest of settings."""

    def __init__(self, folder: Path) -> None:
        """Files are made when they are written."""
        self._folder = folder

    def path(self, digest: str, name: str) -> Path:
        """Where to keep what was found under settings of this digest."""
        return self._folder / measured_sha256()[:12] / f"{name}-{digest[:12]}.json"

    def read(self, path: Path) -> dict[str, Any]:
        """What is kept; nothing if there is no such file, or one that was cut off."""
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, path: Path, found: dict[str, Any]) -> None:
        """Keep it, whole or not at all."""
        replace_durably(path, json.dumps(found).encode())
