"""A sweep that is killed at any moment leaves a valid store, and goes on to the same results."""

import multiprocessing
import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.stored import files
from harness.stored.leftovers import collect
from harness.stored.trials import Damaged, Trial, scan, trials
from tests.harness.toy_cells import aggregates, base_record, base_requests, run_all, settings_of

NUM_KILLS = 200
# Two cells, once each.
MOST = 2


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """In memory, where there is such a place: removing a folder takes milliseconds on a disk."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="kvloom-") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_sweep_that_is_killed_anywhere_resumes_to_the_same_aggregates(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A killed process loses nothing that it wrote: what fsync is for, no test of ours can see.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for budget in (64, 128):
        settings_of(budget), base_record(budget), base_requests()
    run_all(root / "undisturbed", most=MOST)
    wanted, rng = aggregates(trials(root / "undisturbed")), random.Random(3)
    num_moments = moments_of(root / "counted")
    assert num_moments > 50
    num_left, num_partial = 0, 0
    for number in range(NUM_KILLS):
        store = root / str(number)
        run_and_be_killed(store, rng.randrange(num_moments), rng.random())
        found = list(scan(store))
        got = aggregates(trial for trial in found if isinstance(trial, Trial))
        assert not any(isinstance(one, Damaged) for one in found)
        assert all(wanted[key] == scores for key, scores in got.items())
        num_partial += 0 < len(got) < len(wanted)
        run_all(store, most=MOST)
        num_left += collect(store, idle_s=0).temporaries
        assert not list(store.rglob(f"{files.TEMPORARY_PREFIX}*"))
        assert aggregates(trials(store)) == wanted
    assert num_left > NUM_KILLS / 4, "no kill fell into a write: nothing was shown"
    assert num_partial > NUM_KILLS / 4, "no kill fell between cells: nothing was shown"


def moments_of(root: Path) -> int:
    """Calls that change a store, in a whole sweep."""
    told, tell = multiprocessing.Pipe(duplex=False)

    def count() -> None:
        moments = Moments(-1, 0)
        moments.patch()
        run_all(root, most=MOST)
        tell.send(moments.seen)

    assert ended_with(count) == 0
    return int(told.recv())


def run_and_be_killed(root: Path, moment: int, share: float) -> None:
    """A sweep in a process of its own, killed at this call; share: of a write that is done then."""

    def sweep() -> None:
        Moments(moment, share).patch()
        run_all(root, most=MOST)

    assert ended_with(sweep) == -signal.SIGKILL


def ended_with(work: Callable[[], object]) -> int | None:
    # Forked: a fresh interpreter would import for seconds before its first cell.
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode


class Moments:
    """Counts the calls that change files; at one of them it kills this process, half done."""

    def __init__(self, moment: int, share: float) -> None:
        self.moment, self.share, self.seen = moment, share, 0

    def patch(self) -> None:
        # Of this process alone, which is a fork.
        for name in ("rename", "replace", "mkdir", "touch", "unlink"):
            setattr(Path, name, self.counted(getattr(Path, name)))
        for name in ("unlink", "rmdir", "fsync"):
            setattr(os, name, self.counted(getattr(os, name)))
        files.write_durably = self.half_written

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            is_now = self.is_now()
            if is_now and self.share < 0.5:
                self.die()
            try:
                return call(*arguments, **named)
            finally:
                if is_now:
                    self.die()

        return called

    def half_written(self, path: Path, content: bytes) -> None:
        is_now = self.is_now()
        with path.open("xb") as file:
            file.write(content[: int(self.share * len(content))] if is_now else content)
            file.flush()
            os.fsync(file.fileno())
        if is_now:
            self.die()

    def is_now(self) -> bool:
        self.seen += 1
        return self.seen - 1 == self.moment

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
