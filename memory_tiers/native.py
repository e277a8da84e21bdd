"""C++ next to our Python: built by the compiler at hand, cached, and called through ctypes."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", "-std=c++17")


Entry = Callable[..., int]


class UnavailableError(Exception):
    """Compiled code cannot be had here; the message says why."""


@lru_cache
def load_library(name: str, sources: tuple[Path, ...], defines: tuple[str, ...]) -> ctypes.CDLL:
    """The shared object of these sources (headers too, for the cache), built where it is not yet.

    defines: compiler arguments of this build, such as `-DHEAD_DIM=128`. Raises UnavailableError.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise UnavailableError("there is no C++ compiler: g++ is not on PATH and CXX names none")
    command = (compiler, *FLAGS, *defines)
    path = _cache_folder() / f"{name}-{_fingerprint(command, sources)}.so"
    try:
        if not path.exists():
            _build(command, sources, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"{path} cannot be written or loaded: {error}") from error


@lru_cache
def load_entry(
    source: Path,
    name: str,
    arguments: tuple[type[Any], ...],
    headers: tuple[Path, ...] = (),
    defines: tuple[str, ...] = (),
) -> Entry | None:
    """The function `name`, which returns an int64, of one file; None where no compiler is."""
    try:
        entry = load_library(source.stem, (source, *headers), defines)[name]
    except UnavailableError:
        return None
    entry.argtypes, entry.restype = arguments, ctypes.c_int64
    return entry


def _cache_folder() -> Path:
    """Where built libraries stay."""
    named = os.environ.get("KVLOOM_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "kvloom"


def _fingerprint(command: tuple[str, ...], sources: tuple[Path, ...]) -> str:
    """Names all that a build depends on: sources, flags, compiler and processor."""
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=False)
    texts = [source.read_text() for source in sources]
    parts = [*texts, *command[1:], version.stdout, _processor()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """The instruction sets of this processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    known = (line for line in lines if line.startswith(("flags", "Features")))
    return next(known, platform.processor())


def _build(command: tuple[str, ...], sources: tuple[Path, ...], path: Path) -> None:
    """Compile to a private file, then rename: another process never loads half a library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        units = [str(source) for source in sources if source.suffix == ".cpp"]
        done = subprocess.run(
            [*command, *units, "-o", str(part)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            raise UnavailableError(f"{command[0]} failed: {(errors or ['no message'])[0]}")
        part.replace(path)
