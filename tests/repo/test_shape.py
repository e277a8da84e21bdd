"""Laws about the sources themselves: size, alphabet, portability, and what the configs promise."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = ("harness", "backends", "memory_tiers", "sparse_algos", "models")
SOURCE_FOLDERS = (*PACKAGES, "tests", "benchmarks", "conf")
SOURCE_SUFFIXES = {".py", ".yaml", ".cpp", ".h"}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60

# A path in one person's home or scratch folder, or the address of one site's package registry.
LOCAL_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|root|home|Users|mnt|tmp)/")
REGISTRY = re.compile(r"(?:--(?:extra-)?index-url|--find-links)[ =]\S|https?://\S*/simple\b")


def test_no_file_is_longer_than_300_lines() -> None:
    too_long = {
        str(path.relative_to(ROOT)): num_lines
        for path in python_files()
        if (num_lines := len(path.read_text().splitlines())) > MAX_FILE_LINES
    }
    assert not too_long


def test_no_function_is_longer_than_60_lines() -> None:
    too_long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and num_lines(node) > MAX_FUNCTION_LINES
    ]
    assert not too_long


def test_sources_are_ascii() -> None:
    not_ascii = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in source_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if not line.isascii()
    ]
    assert not not_ascii


def test_nothing_points_at_one_machine() -> None:
    pointing = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in [*source_files(), *top_level_files()]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if LOCAL_PATH.search(line) or REGISTRY.search(line)
    ]
    assert not pointing


def test_every_config_parses() -> None:
    configs = sorted((ROOT / "conf").rglob("*.yaml"))
    assert configs
    for path in configs:
        content = yaml.safe_load(path.read_text())
        assert content is None or isinstance(content, dict), path


def test_no_module_beside_an_entry_point_shadows_another_package() -> None:
    # `python harness/run.py` puts harness/ first on the import path.
    beside = {path.stem for path in (ROOT / "harness").iterdir() if is_module(path)}
    assert not beside & (sys.stdlib_module_names | {"torch", "transformers", *PACKAGES})


def test_every_dependency_is_pinned_within_its_range() -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    wrong = [
        str(requirement)
        for requirement in requirements()
        if requirement.name not in pins
        or not requirement.specifier.contains(pins[requirement.name])
    ]
    assert not wrong


def source_files() -> Iterator[Path]:
    """Every hand-written source of the project."""
    for folder in SOURCE_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SOURCE_SUFFIXES and "__pycache__" not in path.parts:
                yield path


def python_files() -> Iterator[Path]:
    return (path for path in source_files() if path.suffix == ".py")


def top_level_files() -> Iterator[Path]:
    names = (
        "README.md",
        "CONTRIBUTING.md",
        "pyproject.toml",
        "constraints.txt",
        "Makefile",
        ".ci/run",
    )
    return (ROOT / name for name in names if (ROOT / name).exists())


def num_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").exists()


def requirements() -> Iterator[Requirement]:
    """What pyproject asks for; vllm stands apart, since it brings a torch of its own."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    apart = {"vllm", "vllm-cpu"}
    groups = [project["dependencies"], *(extras[name] for name in extras if name not in apart)]
    return (Requirement(line) for group in groups for line in group)
