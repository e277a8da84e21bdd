"""What can be chosen: every option of every group in one line, read from `conf/` and the sources.

Nothing is imported or composed, so it takes no time.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
FLAG = "--list"
# What an option of these groups is stands in its source: its YAML tells about its settings.
DESCRIBED_BY_SOURCE = ("algo/prefill", "algo/evict", "algo/retrieve")
ROLES = ("prefill", "evict", "retrieve")
LONGEST, WIDE = 130, 180


@dataclass(frozen=True)
class Option:
    """One choice of a group; is_default: of a plain run; meaning: a sentence, without its stop."""

    group: str
    name: str
    is_default: bool
    meaning: str


def main(arguments: Sequence[str]) -> int:
    """Print the options of the groups that are named, of all without names; the exit code."""
    wished = [one for one in arguments if one != FLAG]
    found = list(options())
    known = list(dict.fromkeys(option.group for option in found))
    for group in wished:
        if group not in known:
            choice = ", ".join(known)
            print(f"kvloom: {FLAG} {group}: no such group; choose {choice}", file=sys.stderr)
            return 2
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    console.print(table([one for one in found if not wished or _is_in(one.group, wished)]))
    console.print(Text("* of a plain run; choose with group=option", style="dim"))
    return 0


def options() -> Iterator[Option]:
    """Every option, by group and name."""
    defaults = defaults_of(read_option(CONF / "run.yaml"))
    for path in sorted(CONF.glob("*/**/*.yaml"), key=lambda one: (one.parent.as_posix(), one.name)):
        group = path.parent.relative_to(CONF).as_posix()
        if group.partition("/")[0] not in defaults:
            continue
        yield Option(group, path.stem, defaults.get(group) == path.stem, meaning(path))


def meaning(path: Path) -> str:
    """What an option is: of its own comment, its class, or the roles that it is made of."""
    group, content = path.parent.relative_to(CONF).as_posix(), read_option(path)
    target = content.get("_target_")
    if target is not None and group in DESCRIBED_BY_SOURCE:
        return _sentence(_docstring(target, of_class=False))
    if comment := _comment(path.read_text()):
        return _sentence(comment)
    if target is not None:
        return _sentence(_docstring(target, of_class=True))
    chosen = {role: name for role, name in defaults_of(content).items() if name != "none"}
    parts = [path.parent / role / f"{name}.yaml" for role, name in chosen.items() if role in ROLES]
    return "; ".join(meaning(part) for part in parts)


def table(shown: Sequence[Option]) -> Table:
    """What to type beside what it means."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for option in shown:
        mark = " *" if option.is_default else ""
        name = Text(f"{option.group}={option.name}{mark}", style="bold" if mark else "")
        grid.add_row(name, Text(option.meaning))
    return grid


def read_option(path: Path) -> dict[str, Any]:
    """What the YAML of an option says, as it stands."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def defaults_of(content: dict[str, Any]) -> dict[str, str]:
    """The option of each group that a defaults list names."""
    entries = [one for one in content.get("defaults", ()) if isinstance(one, dict)]
    return {group: str(option) for one in entries for group, option in one.items()}


def _is_in(group: str, wished: Sequence[str]) -> bool:
    return any(group == one or group.startswith(f"{one}/") for one in wished)


def _comment(text: str) -> str:
    """The comment that a YAML begins with, on one line."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _sentence(text: str) -> str:
    """The first one, without its stop, cut where it would not fit a line."""
    first = re.split(r"(?<=[\w)]\.)\s", " ".join(text.split()))[0].rstrip(".")
    return shorten(first, LONGEST, placeholder=" ...")


def _docstring(target: str, *, of_class: bool) -> str:
    """Of a class or of its module, unread by Python: `a.b.C` is class C in a/b.py."""
    module, _, name = target.rpartition(".")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    if not of_class:
        return (ast.get_docstring(tree) or "").splitlines()[0]
    classes = [one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name]
    return next((ast.get_docstring(one) or "" for one in classes), "")
