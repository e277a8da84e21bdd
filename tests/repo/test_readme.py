"""The README, and the page of files, say what is there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_the_tree_names_every_source_file_with_its_own_phrase() -> None:
    subprocess.run([sys.executable, "tools/readme_tree.py", "--check"], cwd=ROOT, check=True)


def test_the_table_says_what_the_classes_say() -> None:
    subprocess.run([sys.executable, "-m", "tools.catalogue", "--check"], cwd=ROOT, check=True)


def test_every_algorithm_is_in_the_table() -> None:
    named = re.findall(r"^\| `(\w+)` \| ([\w +-]+) \|", README, flags=re.MULTILINE)
    roles = {
        (path.stem, path.parent.name)
        for path in (ROOT / "conf" / "algo").glob("*/*.yaml")
        if path.stem != "none"
    }
    assert roles <= set(named)
    assert len(named) == len(set(named))
    assert {name for name, _ in named} >= {
        path.stem for path in (ROOT / "conf" / "algo").glob("*.yaml")
    }


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert named, "the README names no command"
    assert named <= targets
