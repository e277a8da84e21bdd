"""Made-up runs to compare, and a toy that stands for running a tree."""

import random
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from harness.outcome import Outcome
from harness.record import RunRecord
from harness.recording import build_record
from harness.stored.trials import Trial, write_trial
from tests.harness.facts import cell, dense_arm, environment_stub, facts, outcome, quest_arm, system

NUM_REQUESTS = 8


def record(
    *,
    slower: float = 1.0,
    minute: int = 0,
    scores: Sequence[float] = (1.0,) * NUM_REQUESTS,
    digit: str = "1",
    fingerprint: str = "0",
    arm: dict[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """A valid run of Quest. slower: its latencies; scores: of its answers; arm: of ArmResult."""
    uids = tuple(f"r{index}" for index in range(len(scores)))
    plain = facts()
    model = system().model.model_copy(update={"sha256": "d" * 64})
    answers = tuple(
        answer(uid, slower=slower, score=score) for uid, score in zip(uids, scores, strict=True)
    )
    started_at = plain.started_at + timedelta(minutes=minute)
    given = facts(
        arms=(
            dense_arm(outcomes=tuple(outcome(uid) for uid in uids)),
            quest_arm(**{"outcomes": answers, **(arm or {})}),
        ),
        planned_uids=uids,
        references=dict.fromkeys(uids, ("4711",)),
        system=system().model_copy(update={"model": model}),
        cell=cell(digit),
        env=environment_stub().model_copy(update={"fingerprint": fingerprint * 64}),
        started_at=started_at,
        ended_at=started_at + timedelta(seconds=10),
    )
    return build_record(replace(given, **changes))


def answer(uid: str, *, slower: float = 1.0, score: float = 1.0, **changes: Any) -> Outcome:
    """Three tokens after 50, 55 and 70 ms, or so many times later."""
    times = tuple(1 + slower * after for after in (0.050, 0.055, 0.070))
    said = "4711" if score == 1 else "no idea"
    return outcome(uid, arm="quest", token_times_s=times, score=score, answer=said, **changes)


def stored(root: Path, records: Sequence[RunRecord]) -> Path:
    """The records as trials in a store."""
    for one in records:
        write_trial(one, root)
    return root


@dataclass
class Toy:
    """Runs a tree without running it: latencies are what its `speed.txt` says, with some noise.

    failing: runs, counted from 1, that leave nothing, by the error that they raise.
    """

    noise: float = 0.01
    failing: dict[int, BaseException] = field(default_factory=dict)
    launched: list[Path] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def __call__(self, tree: Path, overrides: Sequence[str], timeout_s: float) -> Trial:
        """See `harness.comparing.launching.Launch`."""
        self.launched.append(tree)
        number = len(self.launched)
        if number in self.failing:
            raise self.failing[number]
        speed = float((tree / "speed.txt").read_text())
        slower = speed * self.rng.lognormvariate(0, self.noise)
        return Trial(tree, record(slower=slower, minute=number))


def repository(root: Path, *speeds: str) -> Path:
    """A repository with one commit for each content of `speed.txt`, or of words beside it."""
    root.mkdir()
    git(root, "init", "--quiet")
    for number, speed in enumerate(speeds):
        (root / "speed.txt").write_text(speed)
        (root / "words.md").write_text(f"Words, {number}.\n")
        git(root, "add", "-A")
        git(root, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", speed)
    return root


def git(root: Path, *arguments: str) -> str:
    """What git prints."""
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
