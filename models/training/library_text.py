"""A corpus that every Python brings along: the prose of its language reference and docstrings.

python -m models.training.library_text --out out/library.txt
"""

import argparse
import ast
import re
import sysconfig
import textwrap
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

SKIPPED_FOLDERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib"})
# A paragraph of prose: mostly letters, and a sentence's end.
MIN_LETTER_SHARE = 0.75


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(prog="python -m models.training.library_text")
    parser.add_argument("--out", type=Path, required=True, help="text file to write")
    options = parser.parse_args(arguments)
    paragraphs = list(dict.fromkeys([*_reference(), *_docstrings()]))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    print(f"{options.out}: {len(paragraphs)} paragraphs")


def _reference() -> Iterator[str]:
    topics = import_module("pydoc_data.topics").topics
    for text in topics.values():
        yield from _prose(text)


def _docstrings() -> Iterator[str]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if SKIPPED_FOLDERS.isdisjoint(path.relative_to(library).parts):
            yield from _of_module(path)


def _of_module(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented):
            yield from _prose(ast.get_docstring(node) or "")


def _prose(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", textwrap.dedent(text)):
        flat = " ".join(re.sub(r'["*`_]', "", paragraph).split())
        letters = sum(char.isalpha() or char == " " for char in flat)
        is_prose = len(flat) > 40 and letters > MIN_LETTER_SHARE * len(flat)
        if is_prose and re.search(r"[a-z][.!?]( |$)", flat) and ">>>" not in flat:
            yield flat


if __name__ == "__main__":
    main()
