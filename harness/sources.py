"""Digests of our own sources: of what is measured, and of what measures."""

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".py", ".cpp", ".h")
MEASURED = ("sparse_algos", "memory_tiers", "backends")
# From requests to numbers: another version of these makes other numbers of the same system.
MEASURING = (
    *("accuracy", "comparison", "exact_tests", "fidelity", "metric", "metrics", "outcome"),
    *("paired_scores", "probe", "trial", "verdict", "workload"),
)


@cache
def measured_sha256() -> str:
    """SHA-256 of the code that is under test: algorithms, memory, backends."""
    files = (path for name in MEASURED for path in (ROOT / name).rglob("*"))
    return digest_of(path for path in files if path.suffix in SUFFIXES)


@cache
def measuring_sha256() -> str:
    """SHA-256 of the code and data that make requests and turn answers and times into numbers."""
    return digest_of([*_task_files(), *(ROOT / "harness" / f"{name}.py" for name in MEASURING)])


@cache
def tasks_sha256() -> str:
    """SHA-256 of the code and data that make requests."""
    return digest_of(_task_files())


def digest_of(paths: Iterable[Path]) -> str:
    """SHA-256 over files of the repository and their names, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        content = path.read_bytes()
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(meaning_of(content) if path.suffix == ".py" else content)
    return digest.hexdigest()


def meaning_of(source: bytes) -> bytes:
    """Python without comments, layout and docstrings: what is left when only words changed."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree).encode()


def _task_files() -> list[Path]:
    paths = (ROOT / "harness" / "tasks").rglob("*")
    return [path for path in paths if path.suffix in (".py", ".txt")]
