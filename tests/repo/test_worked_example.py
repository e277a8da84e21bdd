"""The worked example of CONTRIBUTING, carried out in a copy of the repository."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECTION = (ROOT / "CONTRIBUTING.md").read_text().partition("## A worked example\n")[2]
# A path on a line of its own, then what the file holds.
BLOCK = re.compile(r"^`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = dict(BLOCK.findall(SECTION.partition("\n## ")[0]))
CODE, OPTION = "sparse_algos/retrieve/mean_key.py", "conf/algo/retrieve/mean_key.yaml"
LAWS = ("tests/laws/test_retriever_laws.py", "tests/repo/test_options_alone.py")
pytestmark = pytest.mark.slow


def copy_of_the_repository(target: Path) -> Path:
    """What git would commit, without its history."""
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, done.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def python(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module or a script in the copy, which imports nothing of the original."""
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        (sys.executable, *words), cwd=copy, env=environment, capture_output=True, text=True
    )


def contents(copy: Path) -> dict[str, str]:
    return {
        str(path.relative_to(copy)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in copy.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """Every file of the copy before anything was added, by its hash."""
    return {}


@pytest.fixture(scope="module")
def example(tmp_path_factory, before) -> Path:
    """A copy with the files of the page, and what is generated made anew."""
    copy = copy_of_the_repository(tmp_path_factory.mktemp("example"))
    before.update(contents(copy))
    for name, text in FILES.items():
        (copy / name).write_text(text)
    for words in (("-m", "tools.catalogue"), ("tools/readme_tree.py",)):
        done = python(copy, *words)
        assert done.returncode == 0, done.stderr
    return copy


def test_it_is_one_python_file_and_one_yaml() -> None:
    assert set(FILES) == {CODE, OPTION}


def test_nothing_changes_but_its_files_and_the_generated_table(example, before) -> None:
    after = contents(example)
    assert before.keys() - after.keys() == set()
    assert {name for name in after if after[name] != before.get(name)} == {
        CODE,
        OPTION,
        "README.md",
    }
    row = r"^\| `mean_key` \| retrieve \| .* \| blocks of 16 \| - \| 16 \| 256 tokens \| - \|$"
    assert re.search(row, (example / "README.md").read_text(), flags=re.MULTILINE)


def test_it_keeps_the_style_of_the_house(example) -> None:
    for words in (("check", CODE), ("format", "--check", CODE)):
        done = python(example, "-m", "ruff", *words, "--no-cache")
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_keeps_the_laws_of_retrievers_and_of_attention(example) -> None:
    done = python(example, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "mean_key", *LAWS)
    assert done.returncode == 0, done.stdout
    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted is not None and int(counted[1]) >= 8, done.stdout


def test_it_can_be_chosen_and_runs_beside_dense_attention(example) -> None:
    shown = python(example, "harness/run.py", "--list", "algo/retrieve")
    assert "algo/retrieve=mean_key" in shown.stdout, shown.stderr
    words = ("algo=dense", "algo/retrieve=mean_key", "task.length=512", "task.num_samples=1")
    done = python(example, "harness/run.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mean_key vs dense" in done.stdout
