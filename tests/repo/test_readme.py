"""The README, and the page of files, say what is there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
MOST_LINES = 200


def test_the_readme_can_be_read_in_minutes() -> None:
    assert len(README.splitlines()) <= MOST_LINES


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


def test_every_option_of_a_role_is_explained() -> None:
    page = (ROOT / "docs" / "algorithms.md").read_text()
    explained = set(re.findall(r"`(\w+)`", page))
    options = {path.stem for path in (ROOT / "conf" / "algo").glob("*/*.yaml")} - {"none"}
    assert options <= explained


def test_every_page_that_is_linked_exists() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        assert all((page.parent / link).exists() for link in links), (page, links)


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert named, "the README names no command"
    assert named <= targets
