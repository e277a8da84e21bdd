"""Weights as files."""

import hashlib
from functools import lru_cache
from pathlib import Path


def weights_sha256(path: str) -> str | None:
    """Hash over the safetensors files of a folder, in name order; None when there are none."""
    files = sorted(Path(path).glob("*.safetensors"))
    return _sha256(tuple((file, file.stat().st_mtime_ns) for file in files)) if files else None


@lru_cache
def _sha256(files: tuple[tuple[Path, int], ...]) -> str:
    """Of files as they were at these times, which are read once."""
    digest = hashlib.sha256()
    for file, _ in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
