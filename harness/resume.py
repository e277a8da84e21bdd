"""Rounds that a run has measured, kept as they end, so that a killed run goes on behind them.

A round is a line of a file: its requests through all arms, and what each arm had counted by then.
What is compared is of one round, which one process has measured, all its arms warm.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from backends.base import Backend
from harness.environment import environment, usable_cores
from harness.outcome import Outcome
from harness.record import Cell
from harness.stored.trials import folder_of
from harness.stored.unfinished import Unfinished, open_unfinished, unfinished_name
from memory_tiers.counters import PHASES, Counters, PhaseCounters

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What an arm has counted since its warm-up; phases: by name; preempted: requests."""

    phases: dict[str, PhaseCounters] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    preempted: int = 0

    def plus(self, arm: Backend) -> "Counted":
        """With what an arm has counted in this process."""
        before = {name: self.phases.get(name, PhaseCounters()) for name in PHASES}
        peaks = arm.peak_bytes()
        return Counted(
            phases={name: one.plus(getattr(arm.counters, name)) for name, one in before.items()},
            peak_bytes={name: max(self.peak_bytes.get(name, 0), peaks[name]) for name in peaks},
            preempted=self.preempted + arm.num_preempted,
        )

    @property
    def counters(self) -> Counters:
        """The phases."""
        return Counters(**self.phases)


class Round(BaseModel):
    """One line. counted: by arm, from the first round to this one."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    outcomes: tuple[Outcome, ...]
    counted: dict[str, Counted]


@dataclass
class Resumed:
    """What processes before this one have measured, and where this one adds to it.

    file: None where nothing is kept; said: what a user has to know of it, in one line.
    """

    rounds: Sequence[Round] = ()
    file: Unfinished | None = None
    said: str | None = None

    @property
    def num_rounds(self) -> int:
        """How many rounds are there."""
        return len(self.rounds)

    @property
    def num_requests(self) -> int:
        """How many requests every arm has answered in them."""
        return len({outcome.uid for one in self.rounds for outcome in one.outcomes})

    def counted(self, name: str, arm: Backend) -> Counted:
        """All that an arm has counted, in this process and before."""
        before = self.rounds[-1].counted[name] if self.rounds else Counted()
        return before.plus(arm)

    def outcomes(self, now_s: float) -> list[Outcome]:
        """The outcomes, their times laid end to end before `now_s`.

        Clocks of other processes may have begun anew; within a round all times are of one.
        """
        laid: list[Outcome] = []
        for one in reversed(self.rounds):
            last_s = max(time_s for outcome in one.outcomes for time_s in outcome.token_times_s)
            moved = [_moved(outcome, now_s - last_s) for outcome in one.outcomes]
            now_s = min(outcome.started_s for outcome in moved)
            laid = moved + laid
        return laid

    def add(self, outcomes: Sequence[Outcome], arms: Mapping[str, Backend]) -> None:
        """A round has ended. One that lost a request is measured again, and all behind it."""
        if any(outcome.error is not None for outcome in outcomes):
            self.close()
        if self.file is not None:
            counted = {name: self.counted(name, arm) for name, arm in arms.items()}
            line = Round(outcomes=tuple(outcomes), counted=counted).model_dump_json()
            self.file.append(line.encode())

    def forget(self) -> None:
        """The trial is in the store: nothing of this is needed."""
        if self.file is not None:
            self.file.discard()

    def close(self) -> None:
        """Keep nothing more."""
        if self.file is not None:
            self.file.close()
            self.file = None


def resumed(
    root: Path, cell: Cell, *, uids: Sequence[str], arms: Sequence[str], at_once: int, fresh: bool
) -> Resumed:
    """What may be used of an earlier process: same cell, code, requests, machine and packages."""
    folder, env = folder_of(root, cell), environment()
    conditions = {
        "version": VERSION,
        "cell": cell.hash,
        "code": [cell.code, cell.benchmark],
        "round": cell.round,
        "uids": hashlib.sha256(json.dumps(list(uids)).encode()).hexdigest(),
        "arms": list(arms),
        "at_once": at_once,
        "machine": [env.fingerprint, env.kernel, env.torch_threads, usable_cores()],
        "software": [env.python, env.packages, env.variables],
    }
    first = json.dumps(conditions, sort_keys=True).encode()
    file = open_unfinished(folder / unfinished_name(cell.round), first, fresh=fresh)
    if file is None:
        return Resumed(said="another process measures this cell: what is measured here is not kept")
    rounds = _read(file)
    ours = Resumed(rounds, file)
    if rounds or file.torn:
        dropped = ", the last line was torn and is dropped" if file.torn else ""
        ours.said = (
            f"resumed: {ours.num_requests} of {len(uids)} requests are measured{dropped} "
            f"({file.path}; resume=false starts anew)"
        )
    return ours


def _read(file: Unfinished) -> list[Round]:
    """The rounds up to the first line that is none, where the file is cut."""
    rounds: list[Round] = []
    for line in file.lines[1:]:
        try:
            rounds.append(Round.model_validate_json(line))
        except ValidationError:
            file.cut(1 + len(rounds))
            break
    return rounds


def _moved(outcome: Outcome, by_s: float) -> Outcome:
    times_s = tuple(time_s + by_s for time_s in outcome.token_times_s)
    return replace(outcome, started_s=outcome.started_s + by_s, token_times_s=times_s)
