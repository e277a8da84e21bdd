"""Weights as files."""

import hashlib
from pathlib import Path


def weights_sha256(path: str) -> str | None:
    """Hash over the safetensors files of a folder, in name order; None when there are none."""
    digest, files = hashlib.sha256(), sorted(Path(path).glob("*.safetensors"))
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest() if files else None
