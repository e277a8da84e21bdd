"""Keeps the tree in the README equal to the first docstring lines of the sources.

python tools/readme_tree.py          rewrite the tree
python tools/readme_tree.py --check  exit 1 if it is out of date
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
START, STOP = "<!-- tree -->\n```text\n", "```\n<!-- /tree -->"
FOLDERS = {
    "conf": "everything that can be chosen, one YAML an option",
    "sparse_algos": "knows scores; nothing of bytes, nothing of engines",
    "memory_tiers": "knows bytes: pages, tiers, placement, cache management, summaries",
    "backends": "runs a model and joins the two",
    "harness": "asks the questions: entry point, tasks, metrics, records",
    "benchmarks": "speed against named baselines, interleaved",
    "models": "the bundled model, its card, and its training (`make model`)",
    "tests": "laws over everything in conf/, parity of kernels, and the rest",
    "results": "records of runs, published benchmarks",
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
            files = sorted((ROOT / folder).rglob("*.py"))
            for path in (one for one in files if one.stat().st_size):
                lines.append(f"  {path.relative_to(ROOT / folder)!s:<30}{phrase(path)}")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Rewrite the README, or compare with it."""
    text = README.read_text()
    before, _, rest = text.partition(START)
    after = rest.partition(STOP)[2]
    wanted = before + START + tree() + STOP + after
    if "--check" in sys.argv:
        return int(text != wanted)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
