"""Keeps docs/files.md equal to the first docstring lines of the sources.

python tools/readme_tree.py          rewrite the tree
python tools/readme_tree.py --check  exit 1 if it is out of date
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "files.md"
START, STOP = "<!-- tree -->\n```text\n", "```\n<!-- /tree -->"
FOLDERS = {
    "conf": "everything that can be chosen, one YAML an option",
    "sparse_algos": "knows scores; nothing of bytes, nothing of engines",
    "memory_tiers": "knows bytes: pages, tiers, placement, cache management, summaries",
    "backends": "runs a model and joins the two",
    "harness": "asks the questions: entry point, tasks, metrics, records",
    "hydra_plugins": "where Hydra looks for our sweeper",
    "benchmarks": "speed against named baselines, interleaved",
    "models": "the bundled model, its card, and its training (`make model`)",
    "tests": "laws over everything in conf/, parity of kernels, and the rest",
    "results": "records of runs, published benchmarks",
}
# One algorithm a file; the table in the README has a row for each.
ROLES = {
    "prefill": "patterns of prompt attention, one a file: the table in the README",
    "evict": "what stays of a context, one a file: the table in the README",
    "retrieve": "what a query reads, one a file: the table in the README",
}
WITH_FILES = ("sparse_algos", "memory_tiers", "backends", "harness", "benchmarks")


def phrase(path: Path) -> str:
    """The first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path} has no docstring"
    return docstring.splitlines()[0].rstrip(".")


def tree() -> str:
    """One line a folder, and under the packages one a file."""
    lines = []
    for folder, meaning in FOLDERS.items():
        lines.append(f"{folder + '/':<32}{meaning}")
        if folder in WITH_FILES:
            lines += entries(ROOT / folder)
    return "\n".join(lines) + "\n"


def entries(folder: Path) -> list[str]:
    """One line a file, and one a role of algorithms."""
    roles = {role: meaning for role, meaning in ROLES.items() if (folder / role).is_dir()}
    found = {f"{role}/": meaning for role, meaning in roles.items()}
    for path in (one for one in folder.rglob("*.py") if one.stat().st_size):
        inside = path.relative_to(folder)
        if inside.parts[0] not in roles:
            found[str(inside)] = phrase(path)
    return [f"  {name:<30}{found[name]}" for name in sorted(found)]


def main() -> int:
    """Rewrite the page, or compare with it."""
    text = PAGE.read_text()
    before, _, rest = text.partition(START)
    after = rest.partition(STOP)[2]
    wanted = before + START + tree() + STOP + after
    if "--check" in sys.argv:
        return int(text != wanted)
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
