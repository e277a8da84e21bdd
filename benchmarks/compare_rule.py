"""How often the shipped rule cries wolf, and how often it finds a slowdown, on a virtual clock.

python -m benchmarks.compare_rule      the table of docs/comparing.md, in seconds
"""

from dataclasses import dataclass, field, replace

import numpy as np

from harness.comparing.interleaving import Side, judge, log_ratios
from harness.comparing.options import parse
from harness.comparing.rule import Rule, noise_of
from harness.exact_tests import Floats

NUM_TRIALS = 4000
SEED = 42
CHANGES = (0.0, 0.03, 0.10, 0.15, 0.20)


@dataclass
class VirtualMachine:
    """Many machines at once; a run takes 1, noise and drift on it, the candidate `worse` more.

    noise: deviation of the log of one run, of each metric apart; drift: of the step that the level
    of the whole machine takes from one run to the next; worse: share by metric.
    """

    noise: float
    drift: float
    worse: tuple[float, ...]
    num_trials: int = NUM_TRIALS
    seed: int = SEED
    rng: np.random.Generator = field(init=False)
    level_T: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Start at no drift."""
        self.rng = np.random.default_rng(self.seed)
        self.level_T = np.zeros(self.num_trials)

    def measure(self, side: Side) -> Floats:
        """One run of a side on every machine, float64 [T, M]."""
        self.level_T = self.level_T + self.drift * self.rng.standard_normal(self.num_trials)
        noise_TM = self.noise * self.rng.standard_normal((self.num_trials, len(self.worse)))
        worse_M = np.log1p(self.worse) if side == "candidate" else np.zeros(len(self.worse))
        return np.exp(self.level_T[:, None] + noise_TM + worse_M)


def shares_found(machine: VirtualMachine, rule: Rule) -> Floats:
    """The share of the machines on which each metric is called a regression, float64 [M].

    The noise of A/A rounds is measured first, on the same machine, as a user does.
    """
    worse, machine.worse = machine.worse, (0.0,) * len(machine.worse)
    noise_TM = noise_of(log_ratios(machine.measure, rule.rounds))
    machine.worse = worse
    judged = judge(machine.measure, noise_TM, rule)
    return (judged.decision.class_M == "regression").mean(axis=0)


def main() -> None:
    """Print the shares: of one metric alone, of two, and of one before it is confirmed."""
    shipped = parse([]).rule
    print(f"{shipped}, {NUM_TRIALS} trials, seed {SEED}")
    print("noise/drift  rounds  change   one metric   of two, both  of two, one  unconfirmed alone")
    for noise, drift in ((0.02, 0.01), (0.05, 0.02), (0.10, 0.03)):
        for rounds in (6, 8, 12):
            for change in CHANGES:
                rule = replace(shipped, rounds=rounds)
                unconfirmed = replace(rule, confirm=False)
                shares = [
                    shares_found(VirtualMachine(noise, drift, (change,)), rule)[0],
                    shares_found(VirtualMachine(noise, drift, (change, change)), rule)[0],
                    shares_found(VirtualMachine(noise, drift, (change, 0.0)), rule)[0],
                    shares_found(VirtualMachine(noise, drift, (change,)), unconfirmed)[0],
                ]
                shown = "  ".join(f"{share:12.4f}" for share in shares)
                print(f"{noise:4.0%}/{drift:2.0%}  {rounds:8d}  {change:+7.0%}  {shown}")


if __name__ == "__main__":
    main()
