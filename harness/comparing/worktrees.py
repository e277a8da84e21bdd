"""Trees to run: a checkout of a revision, as long as its context lives, or the tree as it is."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.comparing.options import GIT


@dataclass(frozen=True)
class Tree:
    """A tree with `harness/run.py` in it. sha: its commit; dirty: whether it differs from that."""

    name: str
    folder: Path
    sha: str | None
    dirty: bool | None


@contextmanager
def tree_of(side: str | None, repository: Path) -> Iterator[Tree]:
    """`git:<rev>` checked out apart, or None: the tree at `repository` as it is."""
    if side is None:
        yield _as_it_is(repository)
        return
    rev = side.removeprefix(GIT)
    sha = git(repository, "rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
    if sha is None:
        raise ValueError(f"git:{rev}: no such revision")
    with tempfile.TemporaryDirectory(prefix="kvloom-") as temporary:
        folder = Path(temporary) / "tree"
        try:
            if git(repository, "worktree", "add", "--detach", str(folder), sha) is None:
                raise ValueError(f"git:{rev}: git made no worktree of {sha[:12]}")
            yield Tree(side, folder, sha, dirty=False)
        finally:
            git(repository, "worktree", "remove", "--force", str(folder))
            git(repository, "worktree", "prune")


def git(repository: Path, *arguments: str) -> str | None:
    """What git prints; None where it is missing or refuses."""
    command = ["git", "-C", str(repository), *arguments]
    try:
        # A session of its own: Ctrl-C must not stop the clearing up.
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, start_new_session=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _as_it_is(repository: Path) -> Tree:
    changes = git(repository, "status", "--porcelain")
    dirty = None if changes is None else bool(changes)
    return Tree("working tree", repository, git(repository, "rev-parse", "HEAD"), dirty)
