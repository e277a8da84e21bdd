"""What a long study has finished, so that one that was stopped goes on where it was."""

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.store import sync_folder

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("sparse_algos", "memory_tiers", "backends")


class Kept:
    """Files of JSON by name, apart for each state of the sources and each digest of settings."""

    def __init__(self, folder: Path) -> None:
        """Files are made when they are written."""
        self._folder = folder

    def path(self, digest: str, name: str) -> Path:
        """Where to keep what was found under settings of this digest."""
        return self._folder / self._sources[:12] / f"{name}-{digest[:12]}.json"

    def read(self, path: Path) -> dict[str, Any]:
        """What is kept; nothing if there is no such file, or one that was cut off."""
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, path: Path, found: dict[str, Any]) -> None:
        """Keep it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(found))
        temporary.replace(path)
        sync_folder(path.parent)

    @cached_property
    def _sources(self) -> str:
        """A digest of the code that answers depend on."""
        digest = hashlib.sha256()
        files = [path for name in SOURCES for path in (ROOT / name).rglob("*") if path.is_file()]
        for path in sorted(files):
            if path.suffix in (".py", ".cpp", ".h"):
                digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
        return digest.hexdigest()
