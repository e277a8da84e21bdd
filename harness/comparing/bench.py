"""Two trees on one machine: runs in turns, of which the first rounds warm up and do not count."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from harness.comparing.cells import CellSides
from harness.comparing.comparable import reasons_against_run
from harness.comparing.finding import Rounds
from harness.comparing.interleaving import Judged, Side, judge, log_ratios, turns
from harness.comparing.latency import taken
from harness.comparing.launching import Launch, RunFailedError
from harness.comparing.noise import Noise, NoiseRow
from harness.comparing.options import Options
from harness.comparing.rule import noise_of
from harness.comparing.sides import arm_of, cell_of
from harness.comparing.worktrees import Tree
from harness.exact_tests import Floats
from harness.record import RunRecord
from harness.stored.trials import Trial

# Which run of which side, and what came of it.
Tell = Callable[[str], None]
SIDES: tuple[Side, Side] = ("base", "candidate")


@dataclass
class Bench:
    """Runs of both trees. warm: what the last warm-up of each side left.

    trials: by round, those that count, None where a run left nothing; failures: why, by side.
    """

    trees: dict[Side, Tree]
    options: Options
    launch: Launch
    tell: Tell
    warm: dict[Side, Trial] = field(default_factory=dict)
    trials: dict[Side, list[Trial | None]] = field(
        default_factory=lambda: {side: [] for side in SIDES}
    )
    failures: dict[Side, list[str]] = field(default_factory=lambda: {side: [] for side in SIDES})
    num_runs: int = 0

    def warm_up(self) -> bool:
        """Rounds that do not count; False if a side left nothing: then nothing is measured."""
        for order in turns(self.options.warmup_rounds):
            for side in order:
                trial = self._run(side)
                if trial is None:
                    return False
                self.warm[side] = trial
        return True

    def measure(self, side: Side) -> Floats:
        """One run of a side: the costs of the gated metrics, float64 [M]; NaN of an invalid run."""
        trial = self._run(side)
        self.trials[side].append(trial)
        arm = None if trial is None else arm_of(trial.record, self.options.arm)
        if trial is None or arm is None or reasons_against_run(trial.record):
            return np.full(len(self.options.gated), math.nan)
        return taken(arm.metrics, self.options.gated)

    def judge(self, noise: Noise) -> Judged:
        """The decision over interleaved rounds."""
        return judge(self.measure, noise.of(self.options.gated), self.options.rule)

    def cell(self) -> CellSides:
        """The rounds in which both sides left a trial; of none, the warm-up."""
        rounds = zip(self.trials["base"], self.trials["candidate"], strict=True)
        whole = [(ours, theirs) for ours, theirs in rounds if ours and theirs]
        whole = whole or [(self.warm["base"], self.warm["candidate"])]
        base, candidate = zip(*whole, strict=True)
        return CellSides(cell_of(candidate[0].record), base, candidate)

    def values(self) -> Rounds:
        """What each round of each side showed, by gated metric."""
        return {
            name: {
                side: tuple(self._value(trial, name) for trial in self.trials[side])
                for side in SIDES
            }
            for name in self.options.gated
        }

    def _value(self, trial: Trial | None, name: str) -> float | None:
        arm = None if trial is None else arm_of(trial.record, self.options.arm)
        if trial is None or arm is None or reasons_against_run(trial.record):
            return None
        return arm.metrics[name].value if name in arm.metrics else None

    def _run(self, side: Side) -> Trial | None:
        self.num_runs += 1
        self.tell(f"run {self.num_runs}: {side}, {self.trees[side].name}")
        try:
            return self.launch(self.trees[side].folder, self.options.run, self.options.timeout_s)
        except RunFailedError as error:
            self.failures[side].append(str(error))
            self.tell(f"run {self.num_runs}: {side} failed: {error}")
            return None


def measure_noise(bench: Bench) -> NoiseRow:
    """Base against itself; raises RunFailedError if it cannot run."""
    options = bench.options
    if not bench.warm_up():
        raise RunFailedError("; ".join(bench.failures["base"] + bench.failures["candidate"]))
    logs_MN = log_ratios(bench.measure, options.rounds)
    noise = dict(zip(options.gated, noise_of(logs_MN).tolist(), strict=True))
    record: RunRecord = bench.warm["base"].record
    if record.cell is None or not all(math.isfinite(value) for value in noise.values()):
        raise RunFailedError("too few valid rounds to know the noise")
    return NoiseRow(
        fingerprint=record.env.fingerprint,
        cell=record.cell.hash,
        benchmark=record.cell.benchmark,
        measured_at=datetime.now(UTC),
        sha=bench.trees["base"].sha,
        num_rounds=options.rounds,
        noise=noise,
        source=f"{options.rounds} A/A rounds of {' '.join(options.run) or 'the default run'}",
    )
